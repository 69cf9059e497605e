# The student of plain.py, taught by ReviewKD + ND loss + KD on the RoI logits.
_base_ = ["../_base_/digits_pair.py", "../_base_/digits_coco.py"]

model = dict(
    architecture=_base_.student_parts,
    teacher=_base_.teacher_parts,
    teacher_ckpt="work_dirs/teacher/epoch_6.pth",
    distiller=dict(
        connectors=dict(
            review=dict(
                type="kd_det.ReviewFusion",
                in_channels=[64] * 5,
                out_channels=[64] * 5,
                mid_channels=64,
            )
        ),
        # The weights that the papers give for an R101 and an R18 on COCO.
        distill_losses=dict(
            loss_review=dict(type="kd_det.HCLLoss", loss_weight=1.2),
            loss_nd=dict(
                type="kd_det.NDLoss",
                num_classes=10,
                embed_dim=128,
                background=True,
                loss_weight=1.5,
            ),
            loss_kd=dict(type="mmrazor.KLDivergence", loss_weight=1.0),
        ),
        loss_forward_mappings=dict(
            loss_review=_base_.review_arguments,
            loss_nd=_base_.nd_arguments,
            loss_kd=_base_.kd_arguments,
        ),
    ),
)
# The fusion starts random and has to reach the scale of the teacher's features first: its output
# normalisation grows by no more than the learning rate in a step.
optim_wrapper = dict(
    constructor="kd_det.DistillOptimWrapperConstructor",
    paramwise_cfg=dict(custom_keys={"distiller.connectors": dict(lr_mult=10)}),
)
custom_hooks = [dict(type="kd_det.ClassCenterHook")]
