# What MMRazor's distiller records of a Faster R-CNN with FPN, and, for methods to compose, the ND
# loss and which record goes to which argument of a loss:
#     loss_forward_mappings=dict(loss_nd=_base_.nd_arguments)
_base_ = "./pyramid_losses.py"

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

nd_arguments = dict(
    s_emb=dict(recorder="embedding", from_student=True, data_idx=0),
    t_emb=dict(recorder="embedding", from_student=False, data_idx=0),
    labels=dict(recorder="targets", from_student=True, data_idx=1),
)
kd_arguments = dict(
    preds_S=dict(recorder="logits", from_student=True),
    preds_T=dict(recorder="logits", from_student=False),
)
dkd_arguments = dict(
    s_logits=dict(recorder="logits", from_student=True),
    t_logits=dict(recorder="logits", from_student=False),
    labels=dict(recorder="targets", from_student=True, data_idx=1),
)
dist_arguments = dict(
    logits_S=dict(recorder="logits", from_student=True),
    logits_T=dict(recorder="logits", from_student=False),
)
# All RoIs count, background with a class mean of its own.
nd = dict(type="kd_det.NDLoss", num_classes=80, embed_dim=1024, background=True)
