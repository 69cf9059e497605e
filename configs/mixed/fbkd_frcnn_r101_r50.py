# MMRazor's FBKD for Faster R-CNN, with the ND loss and ReviewKD beside it.
_base_ = [
    "mmrazor::distill/mmdet/fbkd/fbkd_fpn_faster-rcnn_r101_faster-rcnn_r50_1x_coco.py",
    "../_base_/frcnn_distiller.py",
]

model = dict(
    type="kd_det.TeacherDistill",  # the teacher stays in eval mode and out of checkpoints
    distiller=dict(
        **_base_.distiller,
        connectors=dict(review=_base_.review_fusion),
        distill_losses=dict(loss_nd=_base_.nd, loss_review=dict(type="kd_det.HCLLoss")),
        loss_forward_mappings=dict(
            loss_nd=_base_.nd_arguments, loss_review=_base_.review_arguments
        ),
    ),
)
custom_hooks = [dict(type="kd_det.ClassCenterHook")]
