# The robust method for a student whose FPN starts from the teacher's too: its lateral convolutions
# are fitted to the teacher's outputs by least squares before the first iteration.
_base_ = "./robust.py"

model = dict(init_student_from_teacher=["neck", "rpn_head", "roi_head"])
custom_hooks = [dict(type="kd_det.NeckFitHook")]
