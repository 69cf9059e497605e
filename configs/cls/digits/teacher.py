# The teacher: ResNet-20.
_base_ = "../_base_/digits.py"

model = _base_.teacher
