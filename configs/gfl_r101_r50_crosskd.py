# GFL on COCO: R101-FPN teaches R50-FPN by CrossKD, with mmdet's own schedule, 1x of 16 images.
# Published for this pair and schedule: 40.2 to 43.7 box AP (arXiv 2306.11369).
_base_ = [
    "mmdet::gfl/gfl_r50_fpn_1x_coco.py",
    "./_base_/dense_losses.py",
    "./_base_/run_hooks.py",
]

# The student's maps enter the teacher's head after the third of its four convolutions.
depth = 3
feats = {
    f"{branch}_feats": dict(
        type="kd_det.Pyramid",
        levels=[
            dict(type="ModuleOutputs", source=f"bbox_head.{convs}.{depth - 1}", record_idx=level)
            for level in range(5)
        ],
    )
    for branch, convs in (("cls", "cls_convs"), ("box", "reg_convs"))
}
cross = _base_.with_cross_head
losses = ("loss_cross_cls", "loss_cross_dists")
model = dict(
    _delete_=True,
    type="kd_det.TeacherDistill",
    architecture=_base_.model,
    teacher=dict(
        _base_.model.deepcopy(), backbone=dict(_base_.model.backbone, depth=101, init_cfg=None)
    ),
    # mmdet's model zoo, 2x and several scales, 44.7 box AP.
    teacher_ckpt="https://download.openmmlab.com/mmdetection/v2.0/gfl/gfl_r101_fpn_mstrain_2x_coco/gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth",
    distiller=dict(
        type="mmrazor.ConfigurableDistiller",
        student_recorders=dict(
            positives=dict(type="kd_det.Positives", source="bbox_head"), **feats
        ),
        teacher_recorders=dict(head=dict(type="ModuleOutputs", source="bbox_head")),
        connectors={
            name: dict(cross.connectors[name], depth=depth) for name in ("cross_cls", "cross_dists")
        },
        distill_losses={loss: cross.distill_losses[loss] for loss in losses},
        loss_forward_mappings={loss: cross.loss_forward_mappings[loss] for loss in losses},
    ),
)
default_hooks = dict(
    teacher_accuracy=dict(type="kd_det.TeacherAccuracyHook", floor=0.427), **_base_.run_hooks
)
