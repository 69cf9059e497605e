# Losses on an FPN of five levels of 256 channels that both sides record as "fpn": the fusion of
# ReviewKD, and which record goes to which argument.
review_fusion = dict(
    type="kd_det.ReviewFusion",
    in_channels=[256] * 5,
    out_channels=[256] * 5,
    mid_channels=256,
)
pyramid_arguments = dict(
    s_feats=dict(recorder="fpn", from_student=True),
    t_feats=dict(recorder="fpn", from_student=False),
)
review_arguments = dict(
    s_feats=dict(recorder="fpn", from_student=True, connector="review"),
    t_feats=dict(recorder="fpn", from_student=False),
)
# One level at a time, as MMRazor's feature losses want them.
level_arguments = [
    dict(
        preds_S=dict(recorder="fpn", from_student=True, data_idx=level),
        preds_T=dict(recorder="fpn", from_student=False, data_idx=level),
    )
    for level in range(5)
]
