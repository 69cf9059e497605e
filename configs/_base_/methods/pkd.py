# PKD on the pyramid, arXiv 2207.02039, weighted as in MMRazor's recipe for Faster R-CNN.
_base_ = "../frcnn_pair.py"

pkd = dict(type="mmrazor.PKDLoss", loss_weight=6)
model = dict(
    distiller=dict(
        distill_losses={f"loss_pkd_fpn{level}": pkd for level in range(4)},
        loss_forward_mappings=dict(
            loss_pkd_fpn0=_base_.level_arguments[0],
            loss_pkd_fpn1=_base_.level_arguments[1],
            loss_pkd_fpn2=_base_.level_arguments[2],
            loss_pkd_fpn3=_base_.level_arguments[3],
        ),
    )
)
