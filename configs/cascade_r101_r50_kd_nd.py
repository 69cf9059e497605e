# Cascade R-CNN on COCO: R101-FPN teaches R50-FPN by KD and the ND loss (KD++), stage by stage.
_base_ = ["./_base_/cascade_pair.py", "./_base_/coco_1x.py"]

# KD++ as for the Faster R-CNN pair in arXiv 2305.17007, shared among the stages as mmdet weights
# their own losses.
stage_weights = (1, 0.5, 0.25)
kd = {
    f"loss_kd{i}": dict(type="mmrazor.KLDivergence", loss_weight=1.0 * stage_weights[i])
    for i in range(3)
}
nd = {
    f"loss_nd{i}": dict(
        type="kd_det.NDLoss",
        num_classes=80,
        embed_dim=1024,
        background=True,
        loss_weight=1.0 * stage_weights[i],
    )
    for i in range(3)
}
model = dict(
    teacher=dict(backbone=dict(depth=101, init_cfg=None)),
    # mmdet's model zoo, 42.5 box AP.
    teacher_ckpt="https://download.openmmlab.com/mmdetection/v2.0/cascade_rcnn/cascade_rcnn_r101_fpn_20e_coco/cascade_rcnn_r101_fpn_20e_coco_bbox_mAP-0.425_20200504_231812-5057dcc5.pth",
    distiller=dict(distill_losses=dict(**kd, **nd)),
)
# One pre-pass gathers class centers for each stage.
custom_hooks = [
    dict(type="kd_det.ClassCenterHook"),
    dict(type="kd_det.EmbeddingMonitorHook"),
]
default_hooks = dict(teacher_accuracy=dict(type="kd_det.TeacherAccuracyHook", floor=0.405))
