# Faster R-CNN on COCO: R50-FPN teaches MobileNetV2-FPN by the robust method.
_base_ = ["./_base_/methods/robust.py", "./_base_/pairs/r50_mv2.py"]

model = dict(
    architecture=_base_.student,
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
)
