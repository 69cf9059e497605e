# PKD and the ND loss.
_base_ = "./pkd.py"

model = dict(
    distiller=dict(
        distill_losses=dict(loss_nd=_base_.nd),
        loss_forward_mappings=dict(loss_nd=_base_.nd_arguments),
    )
)
custom_hooks = _base_.center_hooks
