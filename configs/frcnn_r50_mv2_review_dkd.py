# Faster R-CNN on COCO: R50-FPN teaches MobileNetV2-FPN by ReviewKD and DKD.
_base_ = ["./_base_/methods/review_dkd.py", "./_base_/pairs/r50_mv2.py"]

model = dict(
    architecture=_base_.student,
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
    # ReviewKD for this pair, arXiv 2104.09044 and its code.
    distiller=dict(distill_losses=dict(loss_review=dict(loss_weight=2.0))),
)
