# The student of plain.py, taught by KD.
_base_ = ["../_base_/methods/kd.py", "../_base_/pairs/digits.py"]

model = dict(
    architecture=_base_.student,
    teacher=_base_.teacher,
    teacher_ckpt=_base_.teacher_ckpt,
    distiller=dict(
        distill_losses=_base_.losses.kd,
    ),
)
custom_hooks = [_base_.warm.kd]
