# ReviewKD and DKD.
_base_ = "./review.py"

model = dict(distiller=_base_.with_dkd)
