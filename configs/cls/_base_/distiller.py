# Two classifiers and MMRazor's distiller, for a method to name its losses.
_base_ = "./records.py"

model = dict(type="kd_det.FixedTeacherDistill", distiller=_base_.distiller)
