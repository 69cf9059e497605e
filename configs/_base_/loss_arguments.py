# Which record goes to which argument of a loss on embeddings or logits, for detectors and
# classifiers alike:
#     loss_forward_mappings=dict(loss_nd=_base_.nd_arguments)
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
