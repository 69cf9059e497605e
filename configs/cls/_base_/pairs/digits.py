# ResNet-14 teaches ResNet-8 with a quarter of its channels on scikit-learn's digits.
_base_ = "../digits.py"

student = dict(backbone=dict(out_indices=(0, 1, 2)))
teacher_ckpt = "work_dirs/cls_digits/teacher/epoch_60.pth"

stages = dict(
    student_recorders=_base_.cifar_stages.after_relu,
    teacher_recorders=_base_.cifar_stages.before_relu,
)
review = dict(
    type="kd_det.ReviewFusion",
    in_channels=[4, 8, 16, 16],
    out_channels=[16, 32, 64, 64],
    mid_channels=64,
)
nd_connectors = dict(
    embedding=dict(type="kd_det.EmbeddingConnector", in_features=16, out_features=64)
)
nd_route = dict(s_emb=dict(connector="embedding"))

nd = dict(num_classes=10, embed_dim=64)
losses = dict(
    kd=dict(loss_kd=dict(loss_weight=1.0, tau=4)),
    kd_nd=dict(loss_kd=dict(loss_weight=1.0, tau=4), loss_nd=dict(loss_weight=1.0, **nd)),
    dkd_nd=dict(loss_dkd=dict(alpha=1.0, beta=1.0, tau=4.0), loss_nd=dict(loss_weight=1.0, **nd)),
    dist_nd=dict(loss_dist=dict(loss_weight=2.0, tau=1), loss_nd=dict(loss_weight=1.0, **nd)),
    review=dict(loss_review=dict(loss_weight=1.0)),
    review_nd=dict(loss_review=dict(loss_weight=1.0), loss_nd=dict(loss_weight=1.0, **nd)),
)
warm = dict(
    kd=dict(type="kd_det.LossWeightHook", schedules=dict(loss_kd=dict(warmup=5))),
    dkd=dict(type="kd_det.LossWeightHook", schedules=dict(loss_dkd=dict(warmup=5))),
    dist=dict(type="kd_det.LossWeightHook", schedules=dict(loss_dist=dict(warmup=5))),
    review=dict(type="kd_det.LossWeightHook", schedules=dict(loss_review=dict(warmup=5))),
)
