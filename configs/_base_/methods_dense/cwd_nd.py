# CWD and the ND loss on positives.
_base_ = ["../methods/cwd.py", "../dense_losses.py"]

model = dict(distiller=_base_.with_dense_nd)
custom_hooks = _base_.center_hooks
