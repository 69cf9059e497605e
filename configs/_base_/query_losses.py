# Losses on queries that both decoders answer, and the records that they read (docs/queries.md):
# KD-DETR, arXiv 2211.08071, with its two sets of queries.
own = dict(type="kd_det.SharedQueries")
drawn = dict(type="kd_det.SharedQueries", random=300)
s_own = dict(recorder="queries", from_student=True)
t_own = dict(recorder="queries", from_student=False)
s_drawn = dict(recorder="drawn_queries", from_student=True)
t_drawn = dict(recorder="drawn_queries", from_student=False)
# The weights of the two terms of boxes are those of DETR's own losses, 5 and 2.
with_queries = dict(
    student_recorders=dict(queries=own, drawn_queries=drawn),
    teacher_recorders=dict(queries=own, drawn_queries=drawn),
    distill_losses=dict(
        loss_kd=dict(type="kd_det.QueryKDLoss", loss_weight=1.0),
        loss_boxes=dict(type="kd_det.QueryBoxLoss", loss_weight=1.0),
        loss_kd_drawn=dict(type="kd_det.QueryKDLoss", loss_weight=1.0),
        loss_boxes_drawn=dict(type="kd_det.QueryBoxLoss", loss_weight=1.0),
    ),
    loss_forward_mappings=dict(
        loss_kd=dict(s_logits=dict(s_own, data_idx=0), t_logits=dict(t_own, data_idx=0)),
        loss_boxes=dict(
            s_boxes=dict(s_own, data_idx=1),
            t_boxes=dict(t_own, data_idx=1),
            t_logits=dict(t_own, data_idx=0),
        ),
        loss_kd_drawn=dict(s_logits=dict(s_drawn, data_idx=0), t_logits=dict(t_drawn, data_idx=0)),
        loss_boxes_drawn=dict(
            s_boxes=dict(s_drawn, data_idx=1),
            t_boxes=dict(t_drawn, data_idx=1),
            t_logits=dict(t_drawn, data_idx=0),
        ),
    ),
)

# KD++ for queries, arXiv 2305.17007: those of the teacher count that it matches to objects.
matched = dict(type="kd_det.SharedQueries", match=True)
with_query_nd = dict(
    student_recorders=dict(queries=matched),
    teacher_recorders=dict(queries=matched),
    distill_losses=dict(loss_nd=dict(type="kd_det.NDLoss", num_classes=80, embed_dim=256)),
    loss_forward_mappings=dict(
        loss_nd=dict(
            s_emb=dict(s_own, data_idx=3),
            t_emb=dict(t_own, data_idx=3),
            labels=dict(t_own, data_idx=4),
        )
    ),
)
with_query_nd_kd = dict(
    student_recorders=dict(queries=matched, drawn_queries=drawn),
    teacher_recorders=dict(queries=matched, drawn_queries=drawn),
    distill_losses=dict(with_queries["distill_losses"], **with_query_nd["distill_losses"]),
    loss_forward_mappings=dict(
        with_queries["loss_forward_mappings"], **with_query_nd["loss_forward_mappings"]
    ),
)
