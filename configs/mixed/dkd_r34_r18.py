# MMRazor's DKD for ResNet-34 and ResNet-18, with the ND loss and ReviewKD beside it.
_base_ = ["mmrazor::distill/mmcls/dkd/dkd_resnet34_resnet18_8xb32_in1k.py", "./_base_/r34_r18.py"]

# The teacher stays in eval mode and out of checkpoints.
model = dict(type="kd_det.TeacherDistill", distiller=_base_.mixed)
