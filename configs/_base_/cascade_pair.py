# Two Cascade R-CNNs with FPN: what is recorded of each stage, and which record goes to which
# argument of the losses loss_kd<stage> and loss_nd<stage>.
_base_ = "mmdet::_base_/models/cascade-rcnn_r50_fpn.py"

stages = range(3)
embedding = {
    f"embedding{i}": dict(type="ModuleInputs", source=f"roi_head.bbox_head.{i}.fc_cls")
    for i in stages
}
logits = {
    f"logits{i}": dict(type="ModuleOutputs", source=f"roi_head.bbox_head.{i}.fc_cls")
    for i in stages
}
targets = {
    f"targets{i}": dict(type="ModuleInputs", source=f"roi_head.bbox_head.{i}.loss_cls")
    for i in stages
}
kd_arguments = {
    f"loss_kd{i}": dict(
        preds_S=dict(recorder=f"logits{i}", from_student=True),
        preds_T=dict(recorder=f"logits{i}", from_student=False),
    )
    for i in stages
}
nd_arguments = {
    f"loss_nd{i}": dict(
        s_emb=dict(recorder=f"embedding{i}", from_student=True, data_idx=0),
        t_emb=dict(recorder=f"embedding{i}", from_student=False, data_idx=0),
        labels=dict(recorder=f"targets{i}", from_student=True, data_idx=1),
    )
    for i in stages
}

model = dict(
    _delete_=True,
    type="kd_det.TeacherDistill",
    architecture=_base_.model,
    teacher=_base_.model,
    # Each of the teacher's stages scores the RoIs that the student's sampled.
    teacher_stage="same",
    distiller=dict(
        type="mmrazor.ConfigurableDistiller",
        student_recorders=dict(**embedding, **logits, **targets),
        teacher_recorders=dict(**embedding, **logits),
        loss_forward_mappings=dict(**kd_arguments, **nd_arguments),
    ),
)
