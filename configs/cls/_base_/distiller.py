# Two classifiers and MMRazor's distiller, for a method to name its losses.
_base_ = ["./classifier.py", "./records.py"]

model = dict(
    _delete_=True,
    type="kd_det.TeacherDistill",
    architecture=_base_.model,
    teacher=_base_.model,
    distiller=_base_.distiller,
)
