# ResNet-50 teaches MobileNetV2 of half the width on CIFAR-100, by KD++ or another method
# of _base_/methods.
_base_ = ["./_base_/methods/{{$KD_DET_METHOD:kd_nd}}.py", "./_base_/cifar100.py"]

# ReviewKD has none for this pair, and takes ReviewKD++'s.
nd = dict(num_classes=100, embed_dim=2048)
losses = dict(
    kd=dict(loss_kd=dict(loss_weight=3.0, tau=4)),
    kd_nd=dict(loss_kd=dict(loss_weight=3.0, tau=4), loss_nd=dict(loss_weight=0.5, **nd)),
    dkd_nd=dict(loss_dkd=dict(alpha=0.5, beta=8.0, tau=4.0), loss_nd=dict(loss_weight=1.0, **nd)),
    dist_nd=dict(loss_dist=dict(loss_weight=7.0, tau=4), loss_nd=dict(loss_weight=1.0, **nd)),
    review=dict(loss_review=dict(loss_weight=6.0)),
    review_nd=dict(loss_review=dict(loss_weight=6.0), loss_nd=dict(loss_weight=2.0, **nd)),
)[_base_.method]

parts = dict(distill_losses=losses, connectors=dict())
if "loss_review" in losses:  # the teacher's stages before ReLU, as published
    parts["student_recorders"] = dict(
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
    )
    parts["teacher_recorders"] = _base_.stages_of.r50
    parts["connectors"]["review"] = dict(
        type="kd_det.ReviewFusion",
        in_channels=[16, 16, 48, 160, 1280],
        out_channels=[256, 512, 1024, 2048, 2048],
        mid_channels=512,
        out_sizes=[32, 16, 8, 4, 1],  # the teacher's, of 32 pixels
    )
if "loss_nd" in losses:
    parts["connectors"]["embedding"] = dict(
        type="kd_det.EmbeddingConnector", in_features=1280, out_features=2048
    )
    parts["loss_forward_mappings"] = dict(loss_nd=dict(s_emb=dict(connector="embedding")))

model = dict(
    architecture=dict(
        backbone=dict(type="kd_det.CifarMobileNetV2"), head=dict(in_channels=1280, **_base_.classes)
    ),
    teacher=dict(
        backbone=dict(type="mmpretrain.ResNet_CIFAR", depth=50),
        head=dict(in_channels=2048, **_base_.classes),
    ),
    # mdistiller's teacher (79.34 top-1), made of its ResNet50_vanilla/ckpt_epoch_240.pth by
    # tools/convert_mdistiller.py.
    teacher_ckpt="checkpoints/cifar100_r50.pth",
    distiller=parts,
)
optim_wrapper = dict(optimizer=dict(lr=0.02))
# Two points under its figure.
default_hooks = dict(teacher_accuracy=dict(floor=77.34))
