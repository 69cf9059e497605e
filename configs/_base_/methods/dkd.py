# DKD on the logits of the RoIs: arXiv 2203.08679, with its weights for COCO.
_base_ = "../frcnn_pair.py"

model = dict(
    distiller=dict(
        distill_losses=dict(loss_dkd=dict(type="kd_det.DKDLoss", alpha=1.0, beta=0.25, tau=1.0)),
        loss_forward_mappings=dict(loss_dkd=_base_.dkd_arguments),
    )
)
