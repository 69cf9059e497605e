# KD++: WRN-40-2 teaches WRN-40-1 on CIFAR-100.
_base_ = ["./_base_/methods/kd_nd.py", "./_base_/pairs/cifar100_wrn40x2_wrn40x1.py"]

model = dict(
    architecture=_base_.student,
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
    distiller=dict(
        connectors=_base_.nd_connectors,
        distill_losses=_base_.losses.kd_nd,
        loss_forward_mappings=dict(loss_nd=_base_.nd_route),
    ),
)
custom_hooks = [*_base_.centers, _base_.warm.kd]
