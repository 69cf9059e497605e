# KD++ on queries: KD-DETR and the ND loss on queries that are matched, arXiv 2305.17007.
_base_ = "./kd.py"

model = dict(distiller=_base_.with_query_nd)
custom_hooks = _base_.center_hooks
