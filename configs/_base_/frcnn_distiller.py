# What MMRazor's distiller records of a Faster R-CNN with FPN and, for methods to compose, losses on
# RoIs with the records that they read.
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
with_nd = dict(
    distill_losses=dict(loss_nd=nd), loss_forward_mappings=dict(loss_nd=_base_.nd_arguments)
)
center_hooks = [
    dict(type="kd_det.ClassCenterHook"),
    dict(type="kd_det.EmbeddingMonitorHook"),
]
with_kd = dict(
    distill_losses=dict(loss_kd=dict(type="mmrazor.KLDivergence", loss_weight=1.0)),
    loss_forward_mappings=dict(loss_kd=_base_.kd_arguments),
)
# With the weights of arXiv 2203.08679 for COCO.
with_dkd = dict(
    distill_losses=dict(loss_dkd=dict(type="kd_det.DKDLoss", alpha=1.0, beta=0.25, tau=1.0)),
    loss_forward_mappings=dict(loss_dkd=_base_.dkd_arguments),
)
