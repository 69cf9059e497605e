# The student of plain.py, taught by DIST and the ND loss (DIST++).
_base_ = [
    "../_base_/methods/dist_nd.py",
    "../_base_/digits_models.py",
    "../_base_/digits_coco.py",
]

model = dict(
    architecture=_base_.student,
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
    distiller=dict(distill_losses=_base_.nd_sizes),
)
