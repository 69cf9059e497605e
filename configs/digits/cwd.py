# The student of plain.py, taught by MMRazor's CWD.
_base_ = [
    "../_base_/methods/cwd.py",
    "../_base_/digits_models.py",
    "../_base_/digits_coco.py",
]

model = dict(
    architecture=_base_.student,
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
)
