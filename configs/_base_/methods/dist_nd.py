# DIST++: DIST and the ND loss, arXiv 2305.17007.
_base_ = "./dist.py"

model = dict(distiller=_base_.with_nd)
custom_hooks = _base_.center_hooks
