# RetinaNet on COCO: R101-FPN teaches R50-FPN by ReviewKD on the pyramid.
_base_ = [
    "./_base_/retinanet_pair.py",
    "./_base_/pyramid_losses.py",
    "./_base_/coco_1x.py",
]

model = dict(
    teacher=dict(backbone=dict(depth=101, init_cfg=None)),
    # mmdet's model zoo, 38.9 box AP.
    teacher_ckpt="https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_r101_fpn_2x_coco/retinanet_r101_fpn_2x_coco_20200131-5560aee8.pth",
    distiller=dict(
        connectors=dict(review=_base_.review_fusion),
        # ReviewKD's own weight and learning rate for this pair: arXiv 2104.09044 and its code.
        distill_losses=dict(loss_review=dict(type="kd_det.HCLLoss", loss_weight=1.0)),
        loss_forward_mappings=dict(loss_review=_base_.review_arguments),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=0.005))
default_hooks = dict(teacher_accuracy=dict(type="kd_det.TeacherAccuracyHook", floor=0.369))
