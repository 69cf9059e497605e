# ResNet-34 teaches ResNet-18 on ImageNet, by KD++ or another method of _base_/methods.
_base_ = ["./_base_/methods/{{$KD_DET_METHOD:kd_nd}}.py", "./_base_/imagenet_r18.py"]

nd = dict(num_classes=1000, embed_dim=512)
losses = dict(
    kd=dict(loss_kd=dict(loss_weight=2.5, tau=1)),
    kd_nd=dict(loss_kd=dict(loss_weight=2.5, tau=1), loss_nd=dict(loss_weight=1.0, **nd)),
    dkd_nd=dict(loss_dkd=dict(alpha=0.8, beta=0.5, tau=1.0), loss_nd=dict(loss_weight=1.0, **nd)),
    dist_nd=dict(loss_dist=dict(loss_weight=2.0, tau=1), loss_nd=dict(loss_weight=1.0, **nd)),
    review=dict(loss_review=dict(loss_weight=1.0)),
    review_nd=dict(loss_review=dict(loss_weight=1.0), loss_nd=dict(loss_weight=3.0, **nd)),
)[_base_.method]

parts = dict(distill_losses=losses, connectors=dict())
if "loss_review" in losses:
    parts["student_recorders"] = _base_.stages_of.r18
    parts["teacher_recorders"] = _base_.stages_of.r34
    parts["connectors"]["review"] = dict(
        _base_.review_fusion, out_channels=_base_.review_fusion.in_channels
    )

model = dict(
    architecture=_base_.student,
    teacher=dict(
        backbone=dict(type="mmpretrain.ResNet", depth=34),
        head=dict(in_channels=512, **_base_.classes),
    ),
    # mmpretrain's model zoo, 73.62 top-1.
    teacher_ckpt="https://download.openmmlab.com/mmclassification/v0/resnet/resnet34_8xb32_in1k_20210831-f257d4e6.pth",
    distiller=parts,
)
# Two points under the zoo's figure.
default_hooks = dict(teacher_accuracy=dict(floor=71.62))
