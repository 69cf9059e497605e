# The student without a teacher: what the distilled one is compared with.
_base_ = ["../_base_/digits_frcnn.py", "../_base_/digits_coco.py"]

model = _base_.student_parts
