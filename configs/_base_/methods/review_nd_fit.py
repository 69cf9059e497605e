# ReviewKD and the ND loss beside the loss of robust_fit. The fusion starts as the student's own
# maps, HCL is in units of the teacher's spread, and RoIs of background take no part in the ND loss.
_base_ = "./robust_fit.py"

model = dict(
    distiller=dict(
        connectors=dict(review=dict(_base_.review_fusion, residual=True)),
        distill_losses=dict(
            loss_review=dict(type="kd_det.HCLLoss", loss_weight=1.0, normalize="level"),
            loss_nd=dict(_base_.nd, background=False),
        ),
        loss_forward_mappings=dict(
            loss_review=_base_.review_arguments, loss_nd=_base_.nd_arguments
        ),
    )
)
custom_hooks = [*_base_.center_hooks, dict(type="kd_det.NeckFitHook")]
