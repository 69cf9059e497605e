# DIST on the logits of the RoIs: arXiv 2205.10536.
_base_ = "../frcnn_pair.py"

model = dict(
    distiller=dict(
        distill_losses=dict(
            loss_dist=dict(
                type="mmrazor.DISTLoss", inter_loss_weight=1.0, intra_loss_weight=1.0, tau=1
            )
        ),
        loss_forward_mappings=dict(loss_dist=_base_.dist_arguments),
    )
)
