# MMRazor's PKD for Faster R-CNN, with the ND loss and ReviewKD beside it.
_base_ = [
    "mmrazor::distill/mmdet/pkd/pkd_fpn_faster-rcnn_r101_faster-rcnn_r50_2x_coco.py",
    "./_base_/frcnn.py",
]

# The teacher stays in eval mode and out of checkpoints.
model = dict(type="kd_det.TeacherDistill", distiller=_base_.mixed)
