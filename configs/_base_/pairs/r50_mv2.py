# Faster R-CNN R50-FPN teaches MobileNetV2-FPN on COCO.
_base_ = "../coco_1x.py"

student = dict(
    backbone=dict(
        _delete_=True,
        type="MobileNetV2",
        out_indices=(1, 2, 4, 6),
        norm_eval=True,
        init_cfg=dict(type="Pretrained", checkpoint="open-mmlab://mmdet/mobilenet_v2"),
    ),
    neck=dict(in_channels=[24, 32, 96, 320]),
)
teacher = dict(backbone=dict(depth=50, init_cfg=None))
# mmdet's model zoo, 38.4 box AP.
teacher_ckpt = "https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r50_fpn_2x_coco/faster_rcnn_r50_fpn_2x_coco_bbox_mAP-0.384_20200504_210434-a5d8aa15.pth"
# Two points under the zoo's figure: a teacher that was not read as it should be shows here, not
# in the student's mAP after a day.
default_hooks = dict(teacher_accuracy=dict(type="kd_det.TeacherAccuracyHook", floor=0.364))
# mmdet's MobileNetV2 also computes its last convolution, whose output FPN does not use: its
# parameters get no gradient.
find_unused_parameters = True
