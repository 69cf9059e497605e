# The student alone: ResNet-8 with a quarter of the teacher's channels.
_base_ = ["../_base_/classifier.py", "../_base_/digits.py"]

model = _base_.student
