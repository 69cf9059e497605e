# LD on the distributions of GFL's boxes: arXiv 2102.12252.
_base_ = ["../frcnn_pair.py", "../dense_losses.py"]

model = dict(distiller=_base_.with_distributions)
