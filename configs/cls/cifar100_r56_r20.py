# ResNet-56 teaches ResNet-20 on CIFAR-100, by KD++ or another method of _base_/methods.
_base_ = ["./_base_/methods/{{$KD_DET_METHOD:kd_nd}}.py", "./_base_/cifar100.py"]

nd = dict(num_classes=100, embed_dim=64)
losses = dict(
    kd=dict(loss_kd=dict(loss_weight=1.0, tau=4)),
    kd_nd=dict(loss_kd=dict(loss_weight=1.0, tau=4), loss_nd=dict(loss_weight=2.0, **nd)),
    dkd_nd=dict(loss_dkd=dict(alpha=2.5, beta=4.0, tau=4.0), loss_nd=dict(loss_weight=3.5, **nd)),
    dist_nd=dict(loss_dist=dict(loss_weight=2.0, tau=4), loss_nd=dict(loss_weight=1.0, **nd)),
    review=dict(loss_review=dict(loss_weight=0.6)),
    review_nd=dict(loss_review=dict(loss_weight=1.2), loss_nd=dict(loss_weight=1.0, **nd)),
)[_base_.method]

parts = dict(distill_losses=losses, connectors=dict())
if "loss_review" in losses:  # the teacher's stages before ReLU, as published
    parts["student_recorders"] = _base_.cifar_stages.after_relu
    parts["teacher_recorders"] = _base_.cifar_stages.before_relu
    parts["connectors"]["review"] = dict(
        type="kd_det.ReviewFusion",
        in_channels=[16, 32, 64, 64],
        out_channels=[16, 32, 64, 64],
        mid_channels=64,
    )

model = dict(
    architecture=dict(
        backbone=dict(type="kd_det.CifarResNet", depth=20, out_indices=(0, 1, 2)),
        head=dict(in_channels=64, **_base_.classes),
    ),
    teacher=dict(
        backbone=dict(type="kd_det.CifarResNet", depth=56),
        head=dict(in_channels=64, **_base_.classes),
    ),
    # mdistiller's teacher (72.34 top-1), made of its resnet56_vanilla/ckpt_epoch_240.pth by
    # tools/convert_mdistiller.py.
    teacher_ckpt="checkpoints/cifar100_r56.pth",
    distiller=parts,
)
# Two points under its figure.
default_hooks = dict(teacher_accuracy=dict(floor=70.34))
