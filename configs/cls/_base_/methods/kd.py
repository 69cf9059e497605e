# KD on the logits: arXiv 1503.02531.
_base_ = "../distiller.py"

model = dict(
    distiller=dict(
        distill_losses=dict(loss_kd=dict(type="mmrazor.KLDivergence")),
        loss_forward_mappings=dict(loss_kd=_base_.kd_arguments),
    )
)
