# DKD++: DKD (arXiv 2203.08679) and the ND loss (arXiv 2305.17007).
_base_ = "../distiller.py"

model = dict(
    distiller=dict(
        distill_losses=dict(
            loss_dkd=dict(type="kd_det.DKDLoss"), loss_nd=dict(type="kd_det.NDLoss")
        ),
        loss_forward_mappings=dict(loss_dkd=_base_.dkd_arguments, loss_nd=_base_.nd_arguments),
    )
)
