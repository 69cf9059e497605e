# DIST++: DIST (arXiv 2205.10536) and the ND loss (arXiv 2305.17007).
_base_ = "../distiller.py"

model = dict(
    distiller=dict(
        distill_losses=dict(
            loss_dist=dict(type="mmrazor.DISTLoss"), loss_nd=dict(type="kd_det.NDLoss")
        ),
        loss_forward_mappings=dict(loss_dist=_base_.dist_arguments, loss_nd=_base_.nd_arguments),
    )
)
