# ReviewKD on the stages and the pooled feature: arXiv 2104.09044.
_base_ = "../distiller.py"

model = dict(
    distiller=dict(
        distill_losses=dict(loss_review=dict(type="kd_det.HCLLoss")),
        loss_forward_mappings=dict(loss_review=_base_.review_arguments),
    )
)
