# The student of plain.py, taught by CWD at a relative temperature, from the teacher's heads.
_base_ = [
    "../_base_/methods/robust.py",
    "../_base_/digits_models.py",
    "../_base_/digits_coco.py",
]

model = dict(
    architecture=_base_.student,
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
)
