from kd_det import compat

compat.activate()
