# Faster R-CNN: R101-FPN teaches R18-FPN by ReviewKD and the ND loss (ReviewKD++) on COCO.
_base_ = ["./_base_/frcnn_pair.py", "./_base_/coco_1x.py"]

model = dict(
    # From ImageNet weights, as published; it does not start from the teacher's neck or heads.
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
        connectors=dict(
            review=dict(
                type="kd_det.ReviewFusion",
                in_channels=[256] * 5,
                out_channels=[256] * 5,
                mid_channels=256,
            )
        ),
        # Weights published for this pair: arXiv 2305.17007, ReviewKD++.
        distill_losses=dict(
            loss_review=dict(type="kd_det.HCLLoss", loss_weight=1.2),
            loss_nd=dict(
                type="kd_det.NDLoss",
                num_classes=80,
                embed_dim=1024,
                background=True,
                loss_weight=1.5,
            ),
        ),
        loss_forward_mappings=dict(
            loss_review=_base_.review_arguments, loss_nd=_base_.nd_arguments
        ),
    ),
)
# The pre-pass goes over all 117k images once; max_images=20000 makes it a sixth as long.
custom_hooks = [dict(type="kd_det.ClassCenterHook")]
# Evaluates the teacher beside the student, after each epoch. Take mmdet's ValLoop where that costs
# too much, and with an EMAHook: this loop starts each validation twice and ends it once.
val_cfg = dict(_delete_=True, type="mmrazor.SingleTeacherDistillValLoop")
