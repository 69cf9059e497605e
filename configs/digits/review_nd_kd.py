# The student of plain.py, taught by ReviewKD, the ND loss and KD.
_base_ = [
    "../_base_/methods/review_nd_kd.py",
    "../_base_/digits_models.py",
    "../_base_/digits_coco.py",
]

model = dict(
    architecture=_base_.student,
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
    distiller=dict(connectors=_base_.review_sizes, distill_losses=_base_.nd_sizes),
)
optim_wrapper = _base_.fast_connectors
