# Losses on what dense heads do, and the records that they read (docs/dense_heads.md). Which layers
# are recorded depends on the heads: kd_det.pairing finds them.
positives = dict(recorder="positives", from_student=True, data_idx=0)
class_maps = dict(
    s_logits=dict(recorder="head", from_student=True, data_idx=0),
    t_logits=dict(recorder="head", from_student=False, data_idx=0),
)

# BCKD, arXiv 2308.14286: weights 1 and 4, and GIoU, as in its code's GFL pair R101 and R50, whose
# student went from 40.1 to 43.2 box AP.
with_class_maps = dict(
    distill_losses=dict(
        loss_kd=dict(type="kd_det.BinaryKDLoss", loss_weight=1.0),
        loss_boxes=dict(type="kd_det.BoxKDLoss", loss_weight=4.0, giou=True),
    ),
    loss_forward_mappings=dict(
        loss_kd=dict(class_maps, positives=positives),
        loss_boxes=dict(
            class_maps,
            s_boxes=dict(recorder="boxes", from_student=True),
            t_boxes=dict(recorder="boxes", from_student=False),
            positives=positives,
        ),
    ),
)

# LD with its valuable localisation region, arXiv 2102.12252: weight 0.25 at temperature 10, as in
# its code and in mmdet's configs/ld; what they are a sum over, this is a mean (kd_det.LDLoss).
with_distributions = dict(
    distill_losses=dict(loss_ld=dict(type="kd_det.LDLoss", loss_weight=0.25)),
    loss_forward_mappings=dict(
        loss_ld=dict(
            s_dists=dict(recorder="head", from_student=True, data_idx=1),
            t_dists=dict(recorder="head", from_student=False, data_idx=1),
            positives=positives,
            region=dict(recorder="positives", from_student=True, data_idx=1),
        )
    ),
)

# CrossKD, arXiv 2306.11369; the weights are ours (kd_det.CrossHead). Of the last two losses, a pair
# whose teacher predicts distributions of edges has the one of these, and others that of boxes.
with_cross_head = dict(
    connectors=dict(
        cross_cls=dict(type="kd_det.CrossHead", branch="cls", depth=1),
        cross_box=dict(type="kd_det.CrossHead", branch="box", depth=1, decode=True),
        cross_dists=dict(type="kd_det.CrossHead", branch="box", depth=1),
    ),
    distill_losses=dict(
        loss_cross_cls=dict(type="kd_det.BinaryKDLoss", loss_weight=1.0),
        loss_cross_box=dict(type="kd_det.BoxKDLoss", loss_weight=1.0, weight="teacher", giou=True),
        loss_cross_dists=dict(type="kd_det.LDLoss", loss_weight=0.25),
    ),
    loss_forward_mappings=dict(
        loss_cross_cls=dict(
            s_logits=dict(recorder="cls_feats", from_student=True, connector="cross_cls"),
            t_logits=dict(recorder="head", from_student=False, data_idx=0),
            positives=positives,
        ),
        loss_cross_box=dict(
            s_boxes=dict(recorder="box_feats", from_student=True, connector="cross_box"),
            t_boxes=dict(recorder="boxes", from_student=False),
            t_logits=dict(recorder="head", from_student=False, data_idx=0),
        ),
        loss_cross_dists=dict(
            s_dists=dict(recorder="box_feats", from_student=True, connector="cross_dists"),
            t_dists=dict(recorder="head", from_student=False, data_idx=1),
            t_logits=dict(recorder="head", from_student=False, data_idx=0),
        ),
    ),
)

# KD++ for positions, arXiv 2305.17007: positives count, and background is not among them.
with_dense_nd = dict(
    distill_losses=dict(loss_nd=dict(type="kd_det.NDLoss", num_classes=80, embed_dim=256)),
    loss_forward_mappings=dict(
        loss_nd=dict(
            s_emb=dict(recorder="embedding", from_student=True),
            t_emb=dict(recorder="embedding", from_student=False),
            labels=positives,
        )
    ),
)
with_dense_nd_kd = {
    part: dict(**with_class_maps[part], **with_dense_nd[part])
    for part in ("distill_losses", "loss_forward_mappings")
}
