# KD: ResNet-32x4 teaches ResNet-8x4 on CIFAR-100.
_base_ = ["./_base_/methods/kd.py", "./_base_/pairs/cifar100_r32x4_r8x4.py"]

model = dict(
    architecture=_base_.student,
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
    distiller=dict(
        distill_losses=_base_.losses.kd,
    ),
)
custom_hooks = [_base_.warm.kd]
