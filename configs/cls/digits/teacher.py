# The teacher: ResNet-14.
_base_ = ["../_base_/classifier.py", "../_base_/digits.py"]

model = _base_.teacher
