# ReviewKD, the ND loss and KD.
_base_ = "./review_nd.py"

model = dict(distiller=_base_.with_kd)
