# Faster R-CNN on COCO: R101-FPN teaches R18-FPN by KD and the ND loss (KD++).
_base_ = ["./_base_/methods/kd_nd.py", "./_base_/pairs/r101_r18.py"]

model = dict(
    architecture=_base_.student,
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
    # KD++, arXiv 2305.17007.
    distiller=dict(
        distill_losses=dict(loss_kd=dict(loss_weight=1.0), loss_nd=dict(loss_weight=1.5))
    ),
)
