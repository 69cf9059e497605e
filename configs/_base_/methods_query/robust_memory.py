# The robust method, on the encoder's memory as on the maps that enter it.
_base_ = "../methods/robust.py"

memory = dict(type="kd_det.Memory")
model = dict(
    distiller=dict(
        student_recorders=dict(memory=memory),
        teacher_recorders=dict(memory=memory),
        distill_losses=dict(
            loss_cwd_memory=dict(type="kd_det.CWDLoss", loss_weight=10.0, tau=0.5, relative=True)
        ),
        loss_forward_mappings=dict(
            loss_cwd_memory=dict(
                s_feats=dict(recorder="memory", from_student=True),
                t_feats=dict(recorder="memory", from_student=False),
            )
        ),
    )
)
