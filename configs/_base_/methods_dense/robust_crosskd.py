# The robust method and CrossKD.
_base_ = ["../methods/robust.py", "../dense_losses.py"]

model = dict(distiller=_base_.with_cross_head)
