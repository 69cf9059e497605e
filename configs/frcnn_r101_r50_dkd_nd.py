# Faster R-CNN on COCO: R101-FPN teaches R50-FPN by DKD and the ND loss (DKD++).
_base_ = ["./_base_/methods/dkd_nd.py", "./_base_/pairs/r101_r50.py"]

model = dict(
    architecture=_base_.student,
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
    # ND as in KD++ for this pair, arXiv 2305.17007; no other is published for DKD++ on COCO.
    distiller=dict(distill_losses=dict(loss_nd=dict(loss_weight=1.0))),
)
