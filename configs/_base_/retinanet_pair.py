# Two RetinaNets with FPN; recipes set the backbones, the teacher's weights and the losses.
_base_ = "mmdet::_base_/models/retinanet_r50_fpn.py"

model = dict(
    _delete_=True,
    type="kd_det.TeacherDistill",
    architecture=_base_.model,
    teacher=_base_.model,
    distiller=dict(
        type="mmrazor.ConfigurableDistiller",
        student_recorders=dict(fpn=dict(type="ModuleOutputs", source="neck")),
        teacher_recorders=dict(fpn=dict(type="ModuleOutputs", source="neck")),
    ),
)
