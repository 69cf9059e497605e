# KD on the logits of the RoIs, T = 1: arXiv 1503.02531.
_base_ = "../frcnn_pair.py"

model = dict(
    distiller=dict(
        distill_losses=dict(loss_kd=dict(type="mmrazor.KLDivergence", loss_weight=1.0)),
        loss_forward_mappings=dict(loss_kd=_base_.kd_arguments),
    )
)
