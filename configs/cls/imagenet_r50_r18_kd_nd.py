# KD++: ResNet-50 teaches ResNet-18 on ImageNet.
_base_ = ["./_base_/methods/kd_nd.py", "./_base_/pairs/imagenet_r50_r18.py"]

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
