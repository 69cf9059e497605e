# CWD on the pyramid, arXiv 2011.13256, weighted as in MMRazor's recipe for Faster R-CNN.
_base_ = "../frcnn_pair.py"

cwd = dict(type="mmrazor.ChannelWiseDivergence", tau=1, loss_weight=10)
model = dict(
    distiller=dict(
        distill_losses={f"loss_cwd_fpn{level}": cwd for level in range(5)},
        loss_forward_mappings=dict(
            loss_cwd_fpn0=_base_.level_arguments[0],
            loss_cwd_fpn1=_base_.level_arguments[1],
            loss_cwd_fpn2=_base_.level_arguments[2],
            loss_cwd_fpn3=_base_.level_arguments[3],
            loss_cwd_fpn4=_base_.level_arguments[4],
        ),
    )
)
