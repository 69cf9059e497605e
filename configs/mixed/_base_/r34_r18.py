# The ND loss and ReviewKD for ResNet-34 and ResNet-18 on ImageNet.
_base_ = ["../../cls/_base_/records.py", "../../cls/_base_/resnet_stages.py"]

mixed = dict(
    student_recorders=dict(**_base_.distiller.student_recorders, **_base_.stages_of.r18),
    teacher_recorders=dict(**_base_.distiller.teacher_recorders, **_base_.stages_of.r34),
    connectors=dict(
        review=dict(
            type="kd_det.ReviewFusion",
            in_channels=[64, 128, 256, 512, 512],
            out_channels=[64, 128, 256, 512, 512],
            mid_channels=512,
        )
    ),
    distill_losses=dict(
        loss_nd=dict(type="kd_det.NDLoss", num_classes=1000, embed_dim=512),
        loss_review=dict(type="kd_det.HCLLoss"),
    ),
    loss_forward_mappings=dict(loss_nd=_base_.nd_arguments, loss_review=_base_.review_arguments),
)
custom_hooks = [dict(type="kd_det.ClassCenterHook")]
