# What MMRazor's distiller records of classifiers with a linear head behind a global average.
_base_ = "../../_base_/loss_arguments.py"

distiller = dict(
    type="mmrazor.ConfigurableDistiller",
    student_recorders=dict(
        embedding=dict(type="ModuleInputs", source="head.fc"),
        logits=dict(type="ModuleOutputs", source="head.fc"),
        targets=dict(type="ModuleInputs", source="head.loss_module"),
    ),
    teacher_recorders=dict(
        embedding=dict(type="ModuleInputs", source="head.fc"),
        logits=dict(type="ModuleOutputs", source="head.fc"),
    ),
)

# A pair says what of its models is recorded as "stages".
review_arguments = dict(
    s_feats=dict(recorder="stages", from_student=True, connector="review"),
    t_feats=dict(recorder="stages", from_student=False),
)
