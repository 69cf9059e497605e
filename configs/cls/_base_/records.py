# What MMRazor's distiller records of classifiers with a linear head behind a global average and,
# for methods to compose, which record goes to which argument of a loss.
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

nd_arguments = dict(
    s_emb=dict(recorder="embedding", from_student=True, data_idx=0),
    t_emb=dict(recorder="embedding", from_student=False, data_idx=0),
    labels=dict(recorder="targets", from_student=True, data_idx=1),
)
kd_arguments = dict(
    preds_S=dict(recorder="logits", from_student=True),
    preds_T=dict(recorder="logits", from_student=False),
)
dkd_arguments = dict(
    s_logits=dict(recorder="logits", from_student=True),
    t_logits=dict(recorder="logits", from_student=False),
    labels=dict(recorder="targets", from_student=True, data_idx=1),
)
dist_arguments = dict(
    logits_S=dict(recorder="logits", from_student=True),
    logits_T=dict(recorder="logits", from_student=False),
)
# A pair says what of its models is recorded as "stages".
review_arguments = dict(
    s_feats=dict(recorder="stages", from_student=True, connector="review"),
    t_feats=dict(recorder="stages", from_student=False),
)
