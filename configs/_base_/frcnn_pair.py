# Two Faster R-CNNs with FPN; recipes set the backbones, the teacher's weights and the losses.
_base_ = ["mmdet::_base_/models/faster-rcnn_r50_fpn.py", "./frcnn_distiller.py"]

model = dict(
    _delete_=True,
    type="kd_det.TeacherDistill",
    architecture=_base_.model,
    teacher=_base_.model,
    distiller=_base_.distiller,
)
