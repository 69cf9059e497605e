# The student of robust.py, taught by the ND loss and KD too.
_base_ = [
    "../_base_/methods/robust_nd_kd.py",
    "../_base_/digits_models.py",
    "../_base_/digits_coco.py",
]

model = dict(
    architecture=_base_.student,
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
    distiller=dict(distill_losses=_base_.nd_sizes),
)
