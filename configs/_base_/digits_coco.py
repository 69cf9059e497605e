# digits-coco (tools/make_digits_coco.py) and a schedule that fits a laptop.
default_scope = "mmdet"
data_root = "data/digits-coco/"
metainfo = dict(classes=tuple("0123456789"))

image_scale = (128, 128)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=image_scale, keep_ratio=True),
    dict(
        type="PackDetInputs",
        # By default mmdet 3.0 also asks for those of a flip.
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]
test_pipeline = train_pipeline
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="CocoDataset",
        data_root=data_root,
        metainfo=metainfo,
        ann_file="annotations/instances_train.json",
        data_prefix=dict(img="train/"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CocoDataset",
        data_root=data_root,
        metainfo=metainfo,
        ann_file="annotations/instances_val.json",
        data_prefix=dict(img="val/"),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_evaluator = dict(
    type="CocoMetric", ann_file=data_root + "annotations/instances_val.json", metric="bbox"
)
test_dataloader = val_dataloader
test_evaluator = val_evaluator

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=4, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10),
)
# For ReviewKD. Its fusion starts random and has to reach the scale of the teacher's features first:
# its output normalisation grows by no more than the learning rate in a step.
fast_connectors = dict(
    constructor="kd_det.DistillOptimWrapperConstructor",
    paramwise_cfg=dict(custom_keys={"distiller.connectors": dict(lr_mult=10)}),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, end=50),
    dict(type="CosineAnnealingLR", by_epoch=True, begin=0, T_max=4, convert_to_iter_based=True),
]

default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=25),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=1),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    exact_resume=dict(type="kd_det.ExactResumeHook"),
    finite_loss=dict(type="kd_det.FiniteLossHook"),
    step_time=dict(type="kd_det.StepTimeHook"),
    student_export=dict(type="kd_det.StudentExportHook"),
)
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
visualizer = dict(type="DetLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")])
log_processor = dict(type="LogProcessor", window_size=25, by_epoch=True)
log_level = "INFO"
load_from = None
resume = False
randomness = dict(seed=0)
