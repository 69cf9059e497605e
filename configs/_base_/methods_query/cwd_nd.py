# CWD and the ND loss on queries that are matched.
_base_ = ["../methods/cwd.py", "../query_losses.py"]

model = dict(distiller=_base_.with_query_nd)
custom_hooks = _base_.center_hooks
