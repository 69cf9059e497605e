# CWD on the pyramid, arXiv 2011.13256, weighted as in MMRazor's recipe for Faster R-CNN.
_base_ = "../frcnn_pair.py"

cwd = dict(type="mmrazor.ChannelWiseDivergence", tau=1, loss_weight=10)
model = dict(
    distiller=dict(
        distill_losses={f"loss_cwd_fpn{level}": cwd for level in range(5)},
        loss_forward_mappings={
            f"loss_cwd_fpn{level}": arguments
            for level, arguments in enumerate(_base_.level_arguments)
        },
    )
)
