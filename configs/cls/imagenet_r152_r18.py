# ResNet-152 teaches ResNet-18 on ImageNet, by KD++ or another method of _base_/methods.
_base_ = ["./_base_/methods/{{$KD_DET_METHOD:kd_nd}}.py", "./_base_/imagenet_r18.py"]

# ReviewKD has none for this pair, and takes ReviewKD++'s.
nd = dict(num_classes=1000, embed_dim=2048)
losses = dict(
    kd=dict(loss_kd=dict(loss_weight=4.0, tau=1)),
    kd_nd=dict(loss_kd=dict(loss_weight=4.0, tau=1), loss_nd=dict(loss_weight=2.0, **nd)),
    dkd_nd=dict(loss_dkd=dict(alpha=1.0, beta=1.0, tau=1.0), loss_nd=dict(loss_weight=1.0, **nd)),
    dist_nd=dict(loss_dist=dict(loss_weight=2.0, tau=1), loss_nd=dict(loss_weight=2.0, **nd)),
    review=dict(loss_review=dict(loss_weight=3.0)),
    review_nd=dict(loss_review=dict(loss_weight=3.0), loss_nd=dict(loss_weight=1.0, **nd)),
)[_base_.method]

parts = dict(distill_losses=losses, connectors=dict())
if "loss_review" in losses:
    parts["student_recorders"] = _base_.stages_of.r18
    parts["teacher_recorders"] = _base_.stages_of.r152
    parts["connectors"]["review"] = _base_.review_fusion
if "loss_nd" in losses:
    parts["connectors"]["embedding"] = _base_.embedding_connector
    parts["loss_forward_mappings"] = dict(loss_nd=dict(s_emb=dict(connector="embedding")))

model = dict(
    architecture=_base_.student,
    teacher=dict(
        backbone=dict(type="mmpretrain.ResNet", depth=152),
        head=dict(in_channels=2048, **_base_.classes),
    ),
    # mmpretrain's model zoo, 78.48 top-1.
    teacher_ckpt="https://download.openmmlab.com/mmclassification/v0/resnet/resnet152_8xb32_in1k_20210901-4d7582fa.pth",
    distiller=parts,
)
# Two points under the zoo's figure.
default_hooks = dict(teacher_accuracy=dict(floor=76.48))
