# ResNet-18, the student of several pairs on ImageNet.
_base_ = "./imagenet.py"

student = dict(
    backbone=dict(type="mmpretrain.ResNet", depth=18), head=dict(in_channels=512, **_base_.classes)
)
fusion = dict(in_channels=[64, 128, 256, 512, 512], mid_channels=512)
