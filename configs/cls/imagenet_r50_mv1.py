# ResNet-50 teaches MobileNetV1 on ImageNet, by KD++ or another method of _base_/methods.
_base_ = ["./_base_/methods/{{$KD_DET_METHOD:kd_nd}}.py", "./_base_/imagenet.py"]

nd = dict(num_classes=1000, embed_dim=2048)
losses = dict(
    kd=dict(loss_kd=dict(loss_weight=4.0, tau=1)),
    kd_nd=dict(loss_kd=dict(loss_weight=4.0, tau=1), loss_nd=dict(loss_weight=1.0, **nd)),
    dkd_nd=dict(loss_dkd=dict(alpha=0.8, beta=1.0, tau=1.0), loss_nd=dict(loss_weight=1.0, **nd)),
    dist_nd=dict(loss_dist=dict(loss_weight=2.0, tau=1), loss_nd=dict(loss_weight=1.0, **nd)),
    review=dict(loss_review=dict(loss_weight=8.0)),
    review_nd=dict(loss_review=dict(loss_weight=8.0), loss_nd=dict(loss_weight=4.0, **nd)),
)[_base_.method]

parts = dict(distill_losses=losses, connectors=dict())
if "loss_review" in losses:
    parts["student_recorders"] = dict(
        stages=dict(
            type="kd_det.Pyramid",
            levels=[
                "backbone.stage1",
                "backbone.stage2",
                "backbone.stage3",
                "backbone.stage4",
                _base_.pooled,
            ],
        )
    )
    parts["teacher_recorders"] = _base_.stages_of.r50
    parts["connectors"]["review"] = dict(
        type="kd_det.ReviewFusion",
        in_channels=[128, 256, 512, 1024, 1024],
        out_channels=[256, 512, 1024, 2048, 2048],
        mid_channels=256,
    )
if "loss_nd" in losses:
    parts["connectors"]["embedding"] = dict(
        type="kd_det.EmbeddingConnector", in_features=1024, out_features=2048
    )
    parts["loss_forward_mappings"] = dict(loss_nd=dict(s_emb=dict(connector="embedding")))

model = dict(
    architecture=dict(
        backbone=dict(type="kd_det.MobileNetV1"), head=dict(in_channels=1024, **_base_.classes)
    ),
    teacher=dict(
        backbone=dict(type="mmpretrain.ResNet", depth=50),
        head=dict(in_channels=2048, **_base_.classes),
    ),
    # mmpretrain's model zoo, 76.55 top-1.
    teacher_ckpt="https://download.openmmlab.com/mmclassification/v0/resnet/resnet50_8xb32_in1k_20210831-ea4938fc.pth",
    distiller=parts,
)
# Two points under the zoo's figure.
default_hooks = dict(teacher_accuracy=dict(floor=74.55))
