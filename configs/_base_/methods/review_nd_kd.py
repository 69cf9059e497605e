# ReviewKD, the ND loss and KD.
_base_ = "./review_nd.py"

model = dict(
    distiller=dict(
        distill_losses=dict(loss_kd=dict(type="mmrazor.KLDivergence", loss_weight=1.0)),
        loss_forward_mappings=dict(loss_kd=_base_.kd_arguments),
    )
)
