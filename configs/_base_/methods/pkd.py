# PKD on the pyramid, arXiv 2207.02039, weighted as in MMRazor's recipe for Faster R-CNN.
_base_ = "../frcnn_pair.py"

pkd = dict(type="mmrazor.PKDLoss", loss_weight=6)
model = dict(
    distiller=dict(
        distill_losses={f"loss_pkd_fpn{level}": pkd for level in range(4)},
        loss_forward_mappings={
            f"loss_pkd_fpn{level}": arguments
            for level, arguments in enumerate(_base_.level_arguments[:4])
        },
    )
)
