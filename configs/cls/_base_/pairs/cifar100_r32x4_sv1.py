# ResNet-32x4 teaches ShuffleNetV1 on CIFAR-100.
_base_ = "../shared/cifar100_r32x4.py"

student = dict(backbone=dict(type="kd_det.CifarShuffleNetV1"), head=dict(in_channels=960))
optim_wrapper = dict(optimizer=dict(lr=0.02))

stages = dict(
    student_recorders=dict(
        stages=dict(
            type="kd_det.Pyramid",
            levels=[
                "backbone.layers.0",
                "backbone.layers.1",
                "backbone.layers.2",
                _base_.pooled,
            ],
        )
    ),
)
review = dict(
    type="kd_det.ReviewFusion",
    in_channels=[240, 480, 960, 960],
    out_channels=[64, 128, 256, 256],
    mid_channels=512,
    out_sizes=[32, 16, 8, 1],  # the teacher's, of 32 pixels
)
nd_connectors = dict(
    embedding=dict(type="kd_det.EmbeddingConnector", in_features=960, out_features=256)
)
nd_route = dict(s_emb=dict(connector="embedding"))

# KD++, DKD++, DIST++ and ReviewKD++: arXiv 2305.17007 and its code, T = 4. ReviewKD: the code of
# arXiv 2104.09044. KD: as in KD++.
nd = dict(num_classes=100, embed_dim=256)
losses = dict(
    kd=dict(loss_kd=dict(loss_weight=2.5, tau=4)),
    kd_nd=dict(loss_kd=dict(loss_weight=2.5, tau=4), loss_nd=dict(loss_weight=1.5, **nd)),
    dkd_nd=dict(loss_dkd=dict(alpha=0.5, beta=8.0, tau=4.0), loss_nd=dict(loss_weight=4.0, **nd)),
    dist_nd=dict(loss_dist=dict(loss_weight=2.5, tau=4), loss_nd=dict(loss_weight=3.0, **nd)),
    review=dict(loss_review=dict(loss_weight=5.0)),
    review_nd=dict(loss_review=dict(loss_weight=7.0), loss_nd=dict(loss_weight=1.0, **nd)),
)
