# ResNet-32x4 teaches ResNet-8x4 on CIFAR-100.
_base_ = "../cifar100.py"

student = dict(
    backbone=dict(
        type="kd_det.CifarResNet", depth=8, channels=(32, 64, 128, 256), out_indices=(0, 1, 2)
    ),
    head=dict(in_channels=256),
)
teacher = dict(
    backbone=dict(type="kd_det.CifarResNet", depth=32, channels=(32, 64, 128, 256)),
    head=dict(in_channels=256),
)
# mdistiller's teacher (79.42 top-1), made of its resnet32x4_vanilla/ckpt_epoch_240.pth by
# tools/convert_mdistiller.py.
teacher_ckpt = "checkpoints/cifar100_r32x4.pth"
# Two points under its figure.
default_hooks = dict(teacher_accuracy=dict(floor=77.42))

# Of what ReviewKD compares, the teacher's stages are taken before ReLU, as published.
stages = dict(
    student_recorders=dict(
        stages=dict(
            type="kd_det.Pyramid",
            levels=[
                *[dict(type="ModuleOutputs", source="backbone", data_idx=i) for i in (0, 1, 2)],
                _base_.pooled,
            ],
        )
    ),
    teacher_recorders=dict(
        stages=dict(
            type="kd_det.Pyramid",
            levels=["backbone.layer1", "backbone.layer2", "backbone.layer3", _base_.pooled],
        )
    ),
)
review = dict(
    type="kd_det.ReviewFusion",
    in_channels=[64, 128, 256, 256],
    out_channels=[64, 128, 256, 256],
    mid_channels=256,
)

# KD++, DKD++, DIST++ and ReviewKD++: arXiv 2305.17007 and its code, T = 4. ReviewKD: the code of
# arXiv 2104.09044. KD: as in KD++.
nd = dict(num_classes=100, embed_dim=256)
losses = dict(
    kd=dict(loss_kd=dict(loss_weight=3.5, tau=4)),
    kd_nd=dict(loss_kd=dict(loss_weight=3.5, tau=4), loss_nd=dict(loss_weight=2.0, **nd)),
    dkd_nd=dict(loss_dkd=dict(alpha=2.0, beta=8.0, tau=4.0), loss_nd=dict(loss_weight=0.5, **nd)),
    dist_nd=dict(loss_dist=dict(loss_weight=1.5, tau=4), loss_nd=dict(loss_weight=4.0, **nd)),
    review=dict(loss_review=dict(loss_weight=5.0)),
    review_nd=dict(loss_review=dict(loss_weight=8.0), loss_nd=dict(loss_weight=1.0, **nd)),
)
