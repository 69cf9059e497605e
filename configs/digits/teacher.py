# The teacher, trained on its own and for longer.
_base_ = [
    "mmdet::_base_/models/faster-rcnn_r50_fpn.py",
    "../_base_/digits_models.py",
    "../_base_/digits_coco.py",
]

model = _base_.teacher
train_cfg = dict(max_epochs=6)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, end=50),
    dict(type="CosineAnnealingLR", by_epoch=True, begin=0, T_max=6, convert_to_iter_based=True),
]
