# PKD, the ND loss and KD.
_base_ = "./pkd_nd.py"

model = dict(distiller=_base_.with_kd)
