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
        # HCL's raw value is about 90 here, against 1 for the task: at its published weight of 1.2
        # it is all that the optimizer sees.
        distill_losses=dict(
            loss_review=dict(type="kd_det.HCLLoss", loss_weight=0.05),
            loss_nd=dict(
                type="kd_det.NDLoss",
                num_classes=10,
                embed_dim=128,
                background=True,
                loss_weight=1.5,
            ),
            loss_kd=dict(type="mmrazor.KLDivergence", loss_weight=2.0),
        ),
        loss_forward_mappings=dict(
            loss_review=_base_.review_arguments,
            loss_nd=_base_.nd_arguments,
            loss_kd=_base_.kd_arguments,
        ),
    ),
)
custom_hooks = [dict(type="kd_det.ClassCenterHook")]
