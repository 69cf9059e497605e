# ResNet-32x4, the teacher of several pairs on CIFAR-100.
_base_ = "./cifar100.py"

teacher = dict(
    backbone=dict(type="kd_det.CifarResNet", depth=32, channels=(32, 64, 128, 256)),
    head=dict(in_channels=256, **_base_.classes),
)
# mdistiller's teacher (79.42 top-1), made of its resnet32x4_vanilla/ckpt_epoch_240.pth by
# tools/convert_mdistiller.py.
teacher_ckpt = "checkpoints/cifar100_r32x4.pth"
# Two points under its figure.
default_hooks = dict(teacher_accuracy=dict(floor=77.42))
