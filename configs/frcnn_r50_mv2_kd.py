# Faster R-CNN on COCO: R50-FPN teaches MobileNetV2-FPN by KD.
_base_ = ["./_base_/methods/kd.py", "./_base_/pairs/r50_mv2.py"]

model = dict(
    architecture=_base_.student,
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
    # KD, as in KD++ of arXiv 2305.17007.
    distiller=dict(distill_losses=dict(loss_kd=dict(loss_weight=1.0))),
)
