# CWD, the ND loss and KD.
_base_ = "./cwd_nd.py"

model = dict(distiller=_base_.with_kd)
