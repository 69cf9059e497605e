# The robust method, the ND loss and KD.
_base_ = "./robust.py"

model = dict(
    distiller=dict(
        distill_losses=dict(
            loss_nd=_base_.nd, loss_kd=dict(type="mmrazor.KLDivergence", loss_weight=1.0)
        ),
        loss_forward_mappings=dict(loss_nd=_base_.nd_arguments, loss_kd=_base_.kd_arguments),
    )
)
custom_hooks = _base_.center_hooks
