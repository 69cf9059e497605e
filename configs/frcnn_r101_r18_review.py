# Faster R-CNN on COCO: R101-FPN teaches R18-FPN by ReviewKD.
_base_ = ["./_base_/methods/review.py", "./_base_/pairs/r101_r18.py"]

model = dict(
    architecture=_base_.student,
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
    # ReviewKD for this pair, arXiv 2104.09044 and its code.
    distiller=dict(distill_losses=dict(loss_review=dict(loss_weight=1.2))),
)
