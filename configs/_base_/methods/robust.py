# For a pair whose loss weights nobody has tuned: CWD at a temperature relative to the scale of the
# teacher's pyramid, from a student that starts with the teacher's heads.
_base_ = "../frcnn_pair.py"

model = dict(
    init_student_from_teacher=["rpn_head", "roi_head"],
    distiller=dict(
        distill_losses=dict(
            loss_cwd=dict(type="kd_det.CWDLoss", loss_weight=10.0, tau=0.5, relative=True)
        ),
        loss_forward_mappings=dict(loss_cwd=_base_.pyramid_arguments),
    ),
)
