# CWD, the ND loss on queries that are matched, and KD-DETR.
_base_ = "./cwd_nd.py"

model = dict(distiller=_base_.with_queries)
