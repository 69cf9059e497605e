# Faster R-CNN on COCO: R50-FPN teaches MobileNetV2-FPN, by ReviewKD++ or another method:
# python tools/train.py configs/frcnn_r50_mv2.py --method kd_nd
_base_ = ["./_base_/methods/{{$KD_DET_METHOD:review_nd}}.py", "./_base_/coco_1x.py"]
method = "{{$KD_DET_METHOD:review_nd}}"

# KD++ and ReviewKD++: arXiv 2305.17007. ReviewKD: arXiv 2104.09044 and its code. Beside DKD and
# DIST, ND has no weight published for COCO and takes that of KD++.
weights = dict(loss_kd=1.0, loss_nd=1.0, loss_review=2.0)
if "review_nd" in method:
    weights.update(loss_nd=1.5, loss_review=2.2)

model = dict(
    architecture=dict(
        backbone=dict(
            _delete_=True,
            type="MobileNetV2",
            out_indices=(1, 2, 4, 6),
            norm_eval=True,
            init_cfg=dict(type="Pretrained", checkpoint="open-mmlab://mmdet/mobilenet_v2"),
        ),
        neck=dict(in_channels=[24, 32, 96, 320]),
    ),
    teacher=dict(backbone=dict(depth=50, init_cfg=None)),
    # mmdet's model zoo, 38.4 box AP.
    teacher_ckpt="https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r50_fpn_2x_coco/faster_rcnn_r50_fpn_2x_coco_bbox_mAP-0.384_20200504_210434-a5d8aa15.pth",
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
default_hooks = dict(teacher_accuracy=dict(type="kd_det.TeacherAccuracyHook", floor=0.364))
# mmdet's MobileNetV2 also computes its last convolution, whose output FPN does not use: its
# parameters get no gradient.
find_unused_parameters = True
