# DKD++: ResNet-32x4 teaches ResNet-8x4 on CIFAR-100.
_base_ = ["./_base_/methods/dkd_nd.py", "./_base_/pairs/cifar100_r32x4_r8x4.py"]

model = dict(
    architecture=_base_.student,
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
    distiller=dict(
        connectors=_base_.nd_connectors,
        distill_losses=_base_.losses.dkd_nd,
        loss_forward_mappings=dict(loss_nd=_base_.nd_route),
    ),
)
custom_hooks = [*_base_.centers, _base_.warm.dkd]
