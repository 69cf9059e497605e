# BCKD on class maps and boxes of equal grids: arXiv 2308.14286.
_base_ = ["../frcnn_pair.py", "../dense_losses.py"]

model = dict(distiller=_base_.with_class_maps)
