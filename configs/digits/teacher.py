# The teacher, trained on its own.
_base_ = ["../_base_/digits_frcnn.py", "../_base_/digits_coco.py"]

model = _base_.teacher_parts
