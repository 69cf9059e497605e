# ResNet-18, the student of several pairs on ImageNet, and its connectors to ResNet-50 and deeper.
_base_ = "./imagenet.py"

student = dict(
    backbone=dict(type="mmpretrain.ResNet", depth=18), head=dict(in_channels=512, **_base_.classes)
)
review_fusion = dict(
    type="kd_det.ReviewFusion",
    in_channels=[64, 128, 256, 512, 512],
    out_channels=[256, 512, 1024, 2048, 2048],
    mid_channels=512,
)
embedding_connector = dict(type="kd_det.EmbeddingConnector", in_features=512, out_features=2048)
