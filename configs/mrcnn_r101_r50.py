# Mask R-CNN on COCO: R101-FPN teaches R50-FPN, by ReviewKD++ or another method of _base_/methods.
_base_ = ["./_base_/methods/{{$KD_DET_METHOD:review_nd}}.py", "./_base_/coco_1x.py"]
method = "{{$KD_DET_METHOD:review_nd}}"

# ReviewKD's weight for this pair, arXiv 2104.09044 and its code; that of ND as for the Faster
# R-CNN pair in arXiv 2305.17007.
weights = dict(loss_review=0.8, loss_nd=1.0)
# What mmdet's Mask R-CNN adds to its Faster R-CNN.
mask_parts = dict(
    type="MaskRCNN",
    data_preprocessor=dict(pad_mask=True),
    roi_head=dict(
        mask_roi_extractor=dict(
            type="SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=14, sampling_ratio=0),
            out_channels=256,
            featmap_strides=[4, 8, 16, 32],
        ),
        mask_head=dict(
            type="FCNMaskHead",
            num_convs=4,
            in_channels=256,
            conv_out_channels=256,
            num_classes=80,
            loss_mask=dict(type="CrossEntropyLoss", use_mask=True, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(rcnn=dict(assigner=dict(match_low_quality=True), mask_size=28)),
    test_cfg=dict(rcnn=dict(mask_thr_binary=0.5)),
)
model = dict(
    architecture=mask_parts,
    teacher=dict(backbone=dict(depth=101, init_cfg=None), **mask_parts),
    # mmdet's model zoo, 40.8 box AP, 36.6 mask AP.
    teacher_ckpt="https://download.openmmlab.com/mmdetection/v2.0/mask_rcnn/mask_rcnn_r101_fpn_2x_coco/mask_rcnn_r101_fpn_2x_coco_bbox_mAP-0.408__segm_mAP-0.366_20200505_071027-14b391c7.pth",
    distiller=dict(
        distill_losses={
            loss: dict(loss_weight=weights[loss])
            for loss in _base_.model.distiller.distill_losses
            if loss in weights
        }
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
# Two points under the zoo's figure.
default_hooks = dict(teacher_accuracy=dict(type="kd_det.TeacherAccuracyHook", floor=0.388))
