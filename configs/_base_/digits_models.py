# mmdet's Faster R-CNN with FPN, shrunk to images of 128 pixels and trained from scratch. What a
# recipe puts over mmdet's model: student or teacher; sizes are those of connectors and losses.
num_classes = 10

backbone = dict(frozen_stages=-1, norm_eval=False, init_cfg=None)
neck = dict(out_channels=64)
heads = dict(
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        # One sample per bin: a quarter of RoIAlign's time, which is a quarter of a step.
        bbox_roi_extractor=dict(
            out_channels=64, roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=1)
        ),
        bbox_head=dict(in_channels=64, fc_out_channels=128, num_classes=num_classes),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=128)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100)),
)

# ResNet-50 with a quarter of its channels, ResNet-18 with an eighth.
teacher = dict(
    backbone=dict(base_channels=16, stem_channels=16, **backbone),
    neck=dict(in_channels=[64, 128, 256, 512], **neck),
    **heads,
)
student = dict(
    backbone=dict(depth=18, base_channels=8, stem_channels=8, **backbone),
    neck=dict(in_channels=[8, 16, 32, 64], **neck),
    **heads,
)
teacher_ckpt = "work_dirs/teacher/epoch_6.pth"

review_sizes = dict(review=dict(in_channels=[64] * 5, out_channels=[64] * 5, mid_channels=64))
nd_sizes = dict(loss_nd=dict(num_classes=num_classes, embed_dim=128))
