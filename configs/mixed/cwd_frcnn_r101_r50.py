# MMRazor's CWD for Faster R-CNN, with the ND loss and ReviewKD beside it.
_base_ = [
    "mmrazor::distill/mmdet/cwd/cwd_fpn_frcnn_r101_frcnn_r50_1x_coco.py",
    "./_base_/frcnn.py",
]

# The teacher stays in eval mode and out of checkpoints.
model = dict(type="kd_det.TeacherDistill", distiller=_base_.mixed)
