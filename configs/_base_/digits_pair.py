# Two of the small detectors; recipes set which is which and the losses.
_base_ = ["./digits_frcnn.py", "./frcnn_distiller.py"]

model = dict(
    _delete_=True,
    type="kd_det.RoITeacherDistill",
    architecture=_base_.model,
    teacher=_base_.model,
    distiller=_base_.distiller,
)
