# The robust method, on the encoder's memory as on the maps that enter it.
_base_ = "../methods/robust.py"

memory = dict(type="kd_det.Memory")
model = dict(
    distiller=dict(
        student_recorders=dict(memory=memory),
        teacher_recorders=dict(memory=memory),
        distill_losses=dict(
            loss_cwd_memory=_base_.model.distiller.distill_losses.loss_cwd,
        ),
        loss_forward_mappings=dict(
            loss_cwd_memory=dict(
                s_feats=dict(recorder="memory", from_student=True),
                t_feats=dict(recorder="memory", from_student=False),
            )
        ),
    )
)
