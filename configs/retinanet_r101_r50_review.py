# RetinaNet on COCO: R101-FPN teaches R50-FPN by ReviewKD on the pyramid. There are no RoIs to
# share, so MMRazor's own algorithm does; its teacher computes the pyramid and no more.
_base_ = "./_base_/coco_1x.py"

model = dict(
    type="mmrazor.FpnTeacherDistill",
    architecture=dict(cfg_path="mmdet::retinanet/retinanet_r50_fpn_1x_coco.py", pretrained=False),
    teacher=dict(cfg_path="mmdet::retinanet/retinanet_r101_fpn_2x_coco.py", pretrained=False),
    # mmdet's model zoo, 38.9 box AP.
    teacher_ckpt="https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_r101_fpn_2x_coco/retinanet_r101_fpn_2x_coco_20200131-5560aee8.pth",
    distiller=dict(
        _scope_="mmrazor",
        type="ConfigurableDistiller",
        student_recorders=dict(fpn=dict(type="ModuleOutputs", source="neck")),
        teacher_recorders=dict(fpn=dict(type="ModuleOutputs", source="neck")),
        connectors=dict(
            review=dict(
                type="kd_det.ReviewFusion",
                in_channels=[256] * 5,
                out_channels=[256] * 5,
                mid_channels=256,
            )
        ),
        # ReviewKD's own weight and learning rate for this pair: arXiv 2104.09044 and its code.
        distill_losses=dict(loss_review=dict(type="kd_det.HCLLoss", loss_weight=1.0)),
        loss_forward_mappings=dict(
            loss_review=dict(
                s_feats=dict(recorder="fpn", from_student=True, connector="review"),
                t_feats=dict(recorder="fpn", from_student=False),
            )
        ),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=0.005))
default_hooks = dict(teacher_accuracy=dict(type="kd_det.TeacherAccuracyHook", floor=0.369))
