# DKD on the logits of the RoIs: arXiv 2203.08679, with its weights for COCO.
_base_ = "../frcnn_pair.py"

model = dict(distiller=_base_.with_dkd)
