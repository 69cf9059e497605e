# Mask R-CNN on COCO: R101-FPN teaches R50-FPN by ReviewKD and the ND loss (ReviewKD++).
_base_ = ["./_base_/methods/review_nd.py", "./_base_/pairs/mrcnn_r101_r50.py"]

model = dict(
    architecture=_base_.student,
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
    # ReviewKD's weight for this pair, arXiv 2104.09044 and its code; that of ND as for the Faster
    # R-CNN pair in arXiv 2305.17007.
    distiller=dict(
        distill_losses=dict(loss_review=dict(loss_weight=0.8), loss_nd=dict(loss_weight=1.0))
    ),
)
