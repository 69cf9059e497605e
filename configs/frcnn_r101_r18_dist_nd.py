# Faster R-CNN on COCO: R101-FPN teaches R18-FPN by DIST and the ND loss (DIST++).
_base_ = ["./_base_/methods/dist_nd.py", "./_base_/pairs/r101_r18.py"]

model = dict(
    architecture=_base_.student,
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
    # ND as in KD++ for this pair, arXiv 2305.17007; none is published for DIST++ on COCO.
    distiller=dict(distill_losses=dict(loss_nd=dict(loss_weight=1.5))),
)
