# ResNet-14 teaches ResNet-8, the student of plain.py, on scikit-learn's digits, by KD++ or another
# method of ../_base_/methods.
_base_ = [
    "../_base_/methods/{{$KD_DET_METHOD:kd_nd}}.py",
    "../_base_/digits.py",
    "../_base_/pair.py",
]

nd = dict(num_classes=10, embed_dim=64)
losses = dict(
    kd=dict(loss_kd=dict(loss_weight=1.0, tau=4)),
    kd_nd=dict(loss_kd=dict(loss_weight=1.0, tau=4), loss_nd=dict(loss_weight=1.0, **nd)),
    dkd_nd=dict(loss_dkd=dict(alpha=1.0, beta=1.0, tau=4.0), loss_nd=dict(loss_weight=1.0, **nd)),
    dist_nd=dict(loss_dist=dict(loss_weight=2.0, tau=1), loss_nd=dict(loss_weight=1.0, **nd)),
    review=dict(loss_review=dict(loss_weight=1.0)),
    review_nd=dict(loss_review=dict(loss_weight=1.0), loss_nd=dict(loss_weight=1.0, **nd)),
)[_base_.method]

parts = dict(distill_losses=losses, connectors=dict())
if "loss_review" in losses:  # the teacher's stages before ReLU, as published
    parts["student_recorders"] = _base_.cifar_stages.after_relu
    parts["teacher_recorders"] = _base_.cifar_stages.before_relu
    parts["connectors"]["review"] = dict(
        type="kd_det.ReviewFusion",
        in_channels=[4, 8, 16, 16],
        out_channels=[16, 32, 64, 64],
        mid_channels=64,
    )
if "loss_nd" in losses:
    parts["connectors"]["embedding"] = dict(
        type="kd_det.EmbeddingConnector", in_features=16, out_features=64
    )
    parts["loss_forward_mappings"] = dict(loss_nd=dict(s_emb=dict(connector="embedding")))

model = dict(
    architecture=dict(
        backbone=dict(out_indices=(0, 1, 2), **_base_.student.backbone), head=_base_.student.head
    ),
    teacher=_base_.teacher,
    teacher_ckpt="work_dirs/cls_digits/teacher/epoch_60.pth",
    distiller=parts,
)
custom_hooks = [
    *_base_.center_hooks,
    dict(type="kd_det.LossWeightHook", schedules={_base_.warmed_loss: dict(warmup=5)}),
]
