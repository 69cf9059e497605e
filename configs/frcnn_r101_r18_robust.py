# Faster R-CNN on COCO: R101-FPN teaches R18-FPN by the robust method.
_base_ = ["./_base_/methods/robust.py", "./_base_/pairs/r101_r18.py"]

model = dict(
    architecture=_base_.student,
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
)
