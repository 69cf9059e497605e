# CrossKD and PKD.
_base_ = ["../methods/pkd.py", "../dense_losses.py"]

model = dict(distiller=_base_.with_cross_head)
