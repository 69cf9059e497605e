# Faster R-CNN on COCO: R50-FPN teaches MobileNetV2-FPN by ReviewKD and the ND loss (ReviewKD++).
_base_ = ["./_base_/methods/review_nd.py", "./_base_/pairs/r50_mv2.py"]

model = dict(
    architecture=_base_.student,
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
    # ReviewKD++ for this pair, arXiv 2305.17007.
    distiller=dict(
        distill_losses=dict(loss_review=dict(loss_weight=2.2), loss_nd=dict(loss_weight=1.5))
    ),
)
