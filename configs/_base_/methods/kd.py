# KD on the logits of the RoIs, T = 1: arXiv 1503.02531.
_base_ = "../frcnn_pair.py"

model = dict(distiller=_base_.with_kd)
