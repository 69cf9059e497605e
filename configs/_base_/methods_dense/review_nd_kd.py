# ReviewKD, the ND loss on positives, and BCKD on class maps and boxes.
_base_ = ["../methods/review.py", "../dense_losses.py"]

model = dict(distiller=_base_.with_dense_nd_kd)
custom_hooks = _base_.center_hooks
