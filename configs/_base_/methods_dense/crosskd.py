# CrossKD: the student's features in the teacher's head, arXiv 2306.11369.
_base_ = ["../frcnn_pair.py", "../dense_losses.py"]

model = dict(distiller=_base_.with_cross_head)
