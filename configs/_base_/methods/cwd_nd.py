# CWD and the ND loss.
_base_ = "./cwd.py"

model = dict(distiller=_base_.with_nd)
custom_hooks = _base_.center_hooks
