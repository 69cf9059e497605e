# scikit-learn's digits, 20 of each class to learn from, and a schedule that takes seconds.
_base_ = "mmpretrain::_base_/default_runtime.py"

data_preprocessor = dict(type="mmpretrain.ClsDataPreprocessor", mean=[78] * 3, std=[96] * 3)
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    dataset=dict(
        type="kd_det.Digits",
        split="train",
        train_per_class=20,
        pipeline=[
            dict(type="RandomCrop", crop_size=8, padding=1),
            dict(type="PackInputs"),
        ],
    ),
    sampler=dict(type="DefaultSampler", shuffle=True),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=0,
    dataset=dict(
        type="kd_det.Digits",
        split="test",
        train_per_class=20,
        pipeline=[dict(type="PackInputs")],
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
)
val_evaluator = dict(type="Accuracy", topk=(1,))
test_dataloader = val_dataloader
test_evaluator = val_evaluator

optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
)
param_scheduler = dict(
    type="CosineAnnealingLR", by_epoch=True, begin=0, T_max=60, convert_to_iter_based=True
)
train_cfg = dict(by_epoch=True, max_epochs=60, val_interval=20)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(
    exact_resume=dict(type="kd_det.ExactResumeHook"),
    finite_loss=dict(type="kd_det.FiniteLossHook"),
    step_time=dict(type="kd_det.StepTimeHook"),
    student_export=dict(type="kd_det.StudentExportHook"),
    logger=dict(interval=7),
    checkpoint=dict(interval=20, max_keep_ckpts=1),
)
randomness = dict(seed=0)

student = dict(
    backbone=dict(type="kd_det.CifarResNet", depth=8, channels=(4, 4, 8, 16)),
    head=dict(num_classes=10, in_channels=16, topk=(1,)),
)
teacher = dict(
    backbone=dict(type="kd_det.CifarResNet", depth=14),
    head=dict(num_classes=10, in_channels=64, topk=(1,)),
)
