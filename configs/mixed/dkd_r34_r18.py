# MMRazor's DKD for ResNet-34 and ResNet-18, with the ND loss and ReviewKD beside it.
_base_ = ["mmrazor::distill/mmcls/dkd/dkd_resnet34_resnet18_8xb32_in1k.py", "./_base_/r34_r18.py"]

model = dict(
    type="kd_det.TeacherDistill",  # the teacher stays in eval mode and out of checkpoints
    distiller=dict(
        **_base_.recorders,
        connectors=dict(review=_base_.review_fusion),
        distill_losses=dict(loss_nd=_base_.nd, loss_review=dict(type="kd_det.HCLLoss")),
        loss_forward_mappings=dict(
            loss_nd=_base_.nd_arguments, loss_review=_base_.review_arguments
        ),
    ),
)
custom_hooks = [dict(type="kd_det.ClassCenterHook")]
