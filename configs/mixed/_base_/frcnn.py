# The ND loss and ReviewKD for a Faster R-CNN pair of MMRazor's.
_base_ = "../../_base_/frcnn_distiller.py"

mixed = dict(
    **_base_.distiller,
    connectors=dict(review=_base_.review_fusion),
    distill_losses=dict(loss_nd=_base_.nd, loss_review=dict(type="kd_det.HCLLoss")),
    loss_forward_mappings=dict(loss_nd=_base_.nd_arguments, loss_review=_base_.review_arguments),
)
custom_hooks = [dict(type="kd_det.ClassCenterHook")]
