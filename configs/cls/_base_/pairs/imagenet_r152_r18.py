# ResNet-152 teaches ResNet-18 on ImageNet.
_base_ = "../shared/imagenet_r18.py"

teacher = dict(backbone=dict(type="mmpretrain.ResNet", depth=152), head=dict(in_channels=2048))
# mmpretrain's model zoo, 78.48 top-1.
teacher_ckpt = "https://download.openmmlab.com/mmclassification/v0/resnet/resnet152_8xb32_in1k_20210901-4d7582fa.pth"
# Two points under the zoo's figure.
default_hooks = dict(teacher_accuracy=dict(floor=76.48))

stages = dict(teacher_recorders=_base_.stages_of.r152)
review = dict(out_channels=[256, 512, 1024, 2048, 2048])
nd_connectors = dict(
    embedding=dict(type="kd_det.EmbeddingConnector", in_features=512, out_features=2048)
)
nd_route = dict(s_emb=dict(connector="embedding"))

# KD++, DKD++ and ReviewKD++: arXiv 2305.17007 and its code, T = 1. DIST: arXiv 2205.10536's weight
# for ImageNet, beside the ND weight of KD++ (none is published for DIST++). ReviewKD: mdistiller.
# KD: as in KD++.
# ReviewKD has no published weight for this pair, and takes that of ReviewKD++.
nd = dict(num_classes=1000, embed_dim=2048)
losses = dict(
    kd=dict(loss_kd=dict(loss_weight=4.0, tau=1)),
    kd_nd=dict(loss_kd=dict(loss_weight=4.0, tau=1), loss_nd=dict(loss_weight=2.0, **nd)),
    dkd_nd=dict(loss_dkd=dict(alpha=1.0, beta=1.0, tau=1.0), loss_nd=dict(loss_weight=1.0, **nd)),
    dist_nd=dict(loss_dist=dict(loss_weight=2.0, tau=1), loss_nd=dict(loss_weight=2.0, **nd)),
    review=dict(loss_review=dict(loss_weight=3.0)),
    review_nd=dict(loss_review=dict(loss_weight=3.0), loss_nd=dict(loss_weight=1.0, **nd)),
)
