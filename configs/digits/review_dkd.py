# The student of plain.py, taught by ReviewKD and DKD.
_base_ = [
    "../_base_/methods/review_dkd.py",
    "../_base_/digits_models.py",
    "../_base_/digits_coco.py",
]

model = dict(
    architecture=_base_.student,
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
    distiller=dict(connectors=_base_.review_sizes),
)
optim_wrapper = _base_.fast_connectors
