# Mask R-CNN on COCO: R101-FPN teaches R50-FPN by ReviewKD and the ND loss (ReviewKD++).
_base_ = ["./_base_/methods/review_nd.py", "./_base_/coco_1x.py"]

model = dict(
    architecture=dict(
        _delete_=True, cfg_path="mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", pretrained=False
    ),
    teacher=dict(
        _delete_=True, cfg_path="mmdet::mask_rcnn/mask-rcnn_r101_fpn_2x_coco.py", pretrained=False
    ),
    # mmdet's model zoo, 40.8 box AP, 36.6 mask AP.
    teacher_ckpt="https://download.openmmlab.com/mmdetection/v2.0/mask_rcnn/mask_rcnn_r101_fpn_2x_coco/mask_rcnn_r101_fpn_2x_coco_bbox_mAP-0.408__segm_mAP-0.366_20200505_071027-14b391c7.pth",
    # ReviewKD's weight for this pair, arXiv 2104.09044 and its code; that of ND as for the Faster
    # R-CNN pair in arXiv 2305.17007.
    distiller=dict(
        distill_losses=dict(loss_review=dict(loss_weight=0.8), loss_nd=dict(loss_weight=1.0))
    ),
)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
            dict(type="RandomResize", scale=[(1333, 640), (1333, 800)], keep_ratio=True),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackDetInputs"),
        ]
    )
)
val_evaluator = dict(metric=["bbox", "segm"])
test_evaluator = val_evaluator
default_hooks = dict(teacher_accuracy=dict(type="kd_det.TeacherAccuracyHook", floor=0.388))
