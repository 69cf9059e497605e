# KD: ResNet-50 teaches MobileNetV1 on ImageNet.
_base_ = ["./_base_/methods/kd.py", "./_base_/pairs/imagenet_r50_mv1.py"]

model = dict(
    architecture=_base_.student,
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
    distiller=dict(
        distill_losses=_base_.losses.kd,
    ),
)
custom_hooks = [_base_.warm.kd]
