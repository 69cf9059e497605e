# Faster R-CNN on COCO: R101-FPN teaches R18-FPN, by ReviewKD++ or another method:
# python tools/train.py configs/frcnn_r101_r18.py --method kd_nd
_base_ = ["./_base_/methods/{{$KD_DET_METHOD:review_nd}}.py", "./_base_/coco_1x.py"]
method = "{{$KD_DET_METHOD:review_nd}}"

# KD++ and ReviewKD++: arXiv 2305.17007. ReviewKD: arXiv 2104.09044 and its code. Beside DKD and
# DIST, ND has no weight published for COCO and takes that of KD++.
weights = dict(loss_kd=1.0, loss_nd=1.5, loss_review=1.2)

model = dict(
    # Students start from ImageNet weights, as published, not from the teacher's neck or heads.
    architecture=dict(
        backbone=dict(
            depth=18, init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet18")
        ),
        neck=dict(in_channels=[64, 128, 256, 512]),
    ),
    teacher=dict(backbone=dict(depth=101, init_cfg=None)),
    # mmdet's model zoo, 39.8 box AP.
    teacher_ckpt="https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r101_fpn_2x_coco/faster_rcnn_r101_fpn_2x_coco_bbox_mAP-0.398_20200504_210455-1d2dac9c.pth",
    distiller=dict(
        distill_losses={
            loss: dict(loss_weight=weights[loss])
            for loss in _base_.model.distiller.distill_losses
            if loss in weights
        }
    ),
)
# Two points under the zoo's figure: a teacher that was not read as it should be shows here, not
# in the student's mAP after a day.
default_hooks = dict(teacher_accuracy=dict(type="kd_det.TeacherAccuracyHook", floor=0.378))
