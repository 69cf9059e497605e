# ResNet-32x4 teaches ResNet-8x4 on CIFAR-100, by KD++ or another method of _base_/methods.
_base_ = ["./_base_/methods/{{$KD_DET_METHOD:kd_nd}}.py", "./_base_/cifar100_r32x4.py"]

nd = dict(num_classes=100, embed_dim=256)
losses = dict(
    kd=dict(loss_kd=dict(loss_weight=3.5, tau=4)),
    kd_nd=dict(loss_kd=dict(loss_weight=3.5, tau=4), loss_nd=dict(loss_weight=2.0, **nd)),
    dkd_nd=dict(loss_dkd=dict(alpha=2.0, beta=8.0, tau=4.0), loss_nd=dict(loss_weight=0.5, **nd)),
    dist_nd=dict(loss_dist=dict(loss_weight=1.5, tau=4), loss_nd=dict(loss_weight=4.0, **nd)),
    review=dict(loss_review=dict(loss_weight=5.0)),
    review_nd=dict(loss_review=dict(loss_weight=8.0), loss_nd=dict(loss_weight=1.0, **nd)),
)[_base_.method]

parts = dict(distill_losses=losses, connectors=dict())
if "loss_review" in losses:  # the teacher's stages before ReLU, as published
    parts["student_recorders"] = _base_.cifar_stages.after_relu
    parts["teacher_recorders"] = _base_.cifar_stages.before_relu
    parts["connectors"]["review"] = dict(
        type="kd_det.ReviewFusion",
        in_channels=[64, 128, 256, 256],
        out_channels=[64, 128, 256, 256],
        mid_channels=256,
    )

model = dict(
    architecture=dict(
        backbone=dict(
            type="kd_det.CifarResNet", depth=8, channels=(32, 64, 128, 256), out_indices=(0, 1, 2)
        ),
        head=dict(in_channels=256, **_base_.classes),
    ),
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
    distiller=parts,
)
