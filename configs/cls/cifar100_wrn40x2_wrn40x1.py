# WRN-40-2 teaches WRN-40-1 on CIFAR-100, by KD++ or another method of _base_/methods.
_base_ = ["./_base_/methods/{{$KD_DET_METHOD:kd_nd}}.py", "./_base_/cifar100.py"]

nd = dict(num_classes=100, embed_dim=128)
losses = dict(
    kd=dict(loss_kd=dict(loss_weight=1.0, tau=4)),
    kd_nd=dict(loss_kd=dict(loss_weight=1.0, tau=4), loss_nd=dict(loss_weight=1.5, **nd)),
    dkd_nd=dict(loss_dkd=dict(alpha=1.0, beta=6.0, tau=4.0), loss_nd=dict(loss_weight=1.0, **nd)),
    dist_nd=dict(loss_dist=dict(loss_weight=2.5, tau=4), loss_nd=dict(loss_weight=3.0, **nd)),
    review=dict(loss_review=dict(loss_weight=5.0)),
    review_nd=dict(loss_review=dict(loss_weight=5.0), loss_nd=dict(loss_weight=4.0, **nd)),
)[_base_.method]

parts = dict(distill_losses=losses, connectors=dict())
if "loss_review" in losses:  # the teacher's stages before ReLU, as published
    parts["student_recorders"] = dict(
        stages=dict(
            type="kd_det.Pyramid",
            levels=["backbone.block1", "backbone.block2", "backbone.block3", _base_.pooled],
        )
    )
    parts["teacher_recorders"] = dict(
        stages=dict(
            type="kd_det.Pyramid",
            levels=[
                "backbone.block2.layer.0.bn1",
                "backbone.block3.layer.0.bn1",
                "backbone.bn1",
                _base_.pooled,
            ],
        )
    )
    parts["connectors"]["review"] = dict(
        type="kd_det.ReviewFusion",
        in_channels=[16, 32, 64, 64],
        out_channels=[32, 64, 128, 128],
        mid_channels=64,
    )
if "loss_nd" in losses:
    parts["connectors"]["embedding"] = dict(
        type="kd_det.EmbeddingConnector", in_features=64, out_features=128
    )
    parts["loss_forward_mappings"] = dict(loss_nd=dict(s_emb=dict(connector="embedding")))

model = dict(
    architecture=dict(
        backbone=dict(type="kd_det.CifarWideResNet", depth=40),
        head=dict(in_channels=64, **_base_.classes),
    ),
    teacher=dict(
        backbone=dict(type="kd_det.CifarWideResNet", depth=40, widen_factor=2),
        head=dict(in_channels=128, **_base_.classes),
    ),
    # mdistiller's teacher (75.61 top-1), made of its wrn_40_2_vanilla/ckpt_epoch_240.pth by
    # tools/convert_mdistiller.py.
    teacher_ckpt="checkpoints/cifar100_wrn40x2.pth",
    distiller=parts,
)
# Two points under its figure.
default_hooks = dict(teacher_accuracy=dict(floor=73.61))
