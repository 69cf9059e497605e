# ResNet-50 teaches MobileNetV2 of half the width on CIFAR-100.
_base_ = "../cifar100.py"

student = dict(backbone=dict(type="kd_det.CifarMobileNetV2"), head=dict(in_channels=1280))
teacher = dict(backbone=dict(type="mmpretrain.ResNet_CIFAR", depth=50), head=dict(in_channels=2048))
# mdistiller's teacher (79.34 top-1), made of its ResNet50_vanilla/ckpt_epoch_240.pth by
# tools/convert_mdistiller.py.
teacher_ckpt = "checkpoints/cifar100_r50.pth"
# Two points under its figure.
default_hooks = dict(teacher_accuracy=dict(floor=77.34))
optim_wrapper = dict(optimizer=dict(lr=0.02))

# Of what ReviewKD compares, the teacher's stages are taken before ReLU, as published.
stages = dict(
    student_recorders=dict(
        stages=dict(
            type="kd_det.Pyramid",
            levels=[
                "backbone.layer2",
                "backbone.layer3",
                "backbone.layer5",
                "backbone.layer7",
                _base_.pooled,
            ],
        )
    ),
    teacher_recorders=_base_.stages_of.r50,
)
review = dict(
    type="kd_det.ReviewFusion",
    in_channels=[16, 16, 48, 160, 1280],
    out_channels=[256, 512, 1024, 2048, 2048],
    mid_channels=512,
    out_sizes=[32, 16, 8, 4, 1],  # the teacher's, of 32 pixels
)
nd_connectors = dict(
    embedding=dict(type="kd_det.EmbeddingConnector", in_features=1280, out_features=2048)
)
nd_route = dict(s_emb=dict(connector="embedding"))

# KD++, DKD++, DIST++ and ReviewKD++: arXiv 2305.17007 and its code, T = 4. ReviewKD: the code of
# arXiv 2104.09044. KD: as in KD++.
# ReviewKD has no published weight for this pair, and takes that of ReviewKD++.
nd = dict(num_classes=100, embed_dim=2048)
losses = dict(
    kd=dict(loss_kd=dict(loss_weight=3.0, tau=4)),
    kd_nd=dict(loss_kd=dict(loss_weight=3.0, tau=4), loss_nd=dict(loss_weight=0.5, **nd)),
    dkd_nd=dict(loss_dkd=dict(alpha=0.5, beta=8.0, tau=4.0), loss_nd=dict(loss_weight=1.0, **nd)),
    dist_nd=dict(loss_dist=dict(loss_weight=7.0, tau=4), loss_nd=dict(loss_weight=1.0, **nd)),
    review=dict(loss_review=dict(loss_weight=6.0)),
    review_nd=dict(loss_review=dict(loss_weight=6.0), loss_nd=dict(loss_weight=2.0, **nd)),
)
