# What MMRazor's distiller records of a Faster R-CNN with FPN and, for methods to compose, the ND
# loss.
_base_ = ["./pyramid_losses.py", "./loss_arguments.py"]

distiller = dict(
    type="mmrazor.ConfigurableDistiller",
    student_recorders=dict(
        fpn=dict(type="ModuleOutputs", source="neck"),
        embedding=dict(type="ModuleInputs", source="roi_head.bbox_head.fc_cls"),
        logits=dict(type="ModuleOutputs", source="roi_head.bbox_head.fc_cls"),
        targets=dict(type="ModuleInputs", source="roi_head.bbox_head.loss_cls"),
    ),
    teacher_recorders=dict(
        fpn=dict(type="ModuleOutputs", source="neck"),
        embedding=dict(type="ModuleInputs", source="roi_head.bbox_head.fc_cls"),
        logits=dict(type="ModuleOutputs", source="roi_head.bbox_head.fc_cls"),
    ),
)

# All RoIs count, background with a class mean of its own.
nd = dict(type="kd_det.NDLoss", num_classes=80, embed_dim=1024, background=True)
center_hooks = [
    dict(type="kd_det.ClassCenterHook"),
    dict(type="kd_det.EmbeddingMonitorHook"),
]
