# Two RetinaNets with FPN, under MMRazor's own algorithm: there are no RoIs to share, and its
# teacher computes the pyramid and no more. Unlike that of kd_det, it writes the teacher into
# checkpoints.
_base_ = "mmdet::_base_/models/retinanet_r50_fpn.py"

model = dict(
    _delete_=True,
    type="mmrazor.FpnTeacherDistill",
    architecture=_base_.model,
    teacher=_base_.model,
    distiller=dict(
        _scope_="mmrazor",
        type="ConfigurableDistiller",
        student_recorders=dict(fpn=dict(type="ModuleOutputs", source="neck")),
        teacher_recorders=dict(fpn=dict(type="ModuleOutputs", source="neck")),
    ),
)
