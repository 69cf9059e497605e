# KD++ on dense heads: BCKD and the ND loss on positives, arXiv 2305.17007.
_base_ = "./kd.py"

model = dict(distiller=_base_.with_dense_nd)
custom_hooks = _base_.center_hooks
