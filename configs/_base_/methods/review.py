# ReviewKD on the pyramid: arXiv 2104.09044.
_base_ = "../frcnn_pair.py"

model = dict(
    distiller=dict(
        connectors=dict(review=_base_.review_fusion),
        distill_losses=dict(loss_review=dict(type="kd_det.HCLLoss", loss_weight=1.0)),
        loss_forward_mappings=dict(loss_review=_base_.review_arguments),
    )
)
