# The robust method, the ND loss on queries that are matched, and KD-DETR.
_base_ = ["../methods/robust.py", "../query_losses.py"]

model = dict(distiller=_base_.with_query_nd_kd)
custom_hooks = _base_.center_hooks
