# The student without a teacher: what the distilled ones are compared with.
_base_ = [
    "mmdet::_base_/models/faster-rcnn_r50_fpn.py",
    "../_base_/digits_models.py",
    "../_base_/digits_coco.py",
]

model = _base_.student
