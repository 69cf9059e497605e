# ResNet-32x4 teaches ShuffleNetV1 on CIFAR-100, by KD++ or another method of _base_/methods.
_base_ = ["./_base_/methods/{{$KD_DET_METHOD:kd_nd}}.py", "./_base_/cifar100_r32x4.py"]

nd = dict(num_classes=100, embed_dim=256)
losses = dict(
    kd=dict(loss_kd=dict(loss_weight=2.5, tau=4)),
    kd_nd=dict(loss_kd=dict(loss_weight=2.5, tau=4), loss_nd=dict(loss_weight=1.5, **nd)),
    dkd_nd=dict(loss_dkd=dict(alpha=0.5, beta=8.0, tau=4.0), loss_nd=dict(loss_weight=4.0, **nd)),
    dist_nd=dict(loss_dist=dict(loss_weight=2.5, tau=4), loss_nd=dict(loss_weight=3.0, **nd)),
    review=dict(loss_review=dict(loss_weight=5.0)),
    review_nd=dict(loss_review=dict(loss_weight=7.0), loss_nd=dict(loss_weight=1.0, **nd)),
)[_base_.method]

parts = dict(distill_losses=losses, connectors=dict())
if "loss_review" in losses:  # the teacher's stages before ReLU, as published
    parts["student_recorders"] = dict(
        stages=dict(
            type="kd_det.Pyramid",
            levels=["backbone.layers.0", "backbone.layers.1", "backbone.layers.2", _base_.pooled],
        )
    )
    parts["teacher_recorders"] = _base_.cifar_stages.before_relu
    parts["connectors"]["review"] = dict(
        type="kd_det.ReviewFusion",
        in_channels=[240, 480, 960, 960],
        out_channels=[64, 128, 256, 256],
        mid_channels=512,
        out_sizes=[32, 16, 8, 1],  # the teacher's, of 32 pixels
    )
if "loss_nd" in losses:
    parts["connectors"]["embedding"] = dict(
        type="kd_det.EmbeddingConnector", in_features=960, out_features=256
    )
    parts["loss_forward_mappings"] = dict(loss_nd=dict(s_emb=dict(connector="embedding")))

model = dict(
    architecture=dict(
        backbone=dict(type="kd_det.CifarShuffleNetV1"), head=dict(in_channels=960, **_base_.classes)
    ),
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
    distiller=parts,
)
optim_wrapper = dict(optimizer=dict(lr=0.02))
