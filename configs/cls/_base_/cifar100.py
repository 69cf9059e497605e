# CIFAR-100 under data/cifar100/, and KD++'s schedule: batches of 64 on each of two GPUs at the
# learning rate below, which follows the batch; with one GPU it is mdistiller's.
_base_ = [
    "./pair.py",
    "mmpretrain::_base_/datasets/cifar100_bs16.py",
    "mmpretrain::_base_/default_runtime.py",
]

# mdistiller's, with which its teachers were trained.
data_preprocessor = dict(
    type="mmpretrain.ClsDataPreprocessor",
    mean=[129.3105, 124.1085, 112.404],
    std=[68.2125, 65.4075, 70.4055],
)
train_dataloader = dict(batch_size=64, dataset=dict(download=False))
val_dataloader = dict(batch_size=256, dataset=dict(download=False))
test_dataloader = val_dataloader

optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
)
param_scheduler = dict(type="MultiStepLR", by_epoch=True, milestones=[150, 180, 210], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=240, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(enable=True, base_batch_size=128)
default_hooks = dict(
    checkpoint=dict(interval=10, max_keep_ckpts=1, save_best="accuracy/top1"),
    exact_resume=dict(type="kd_det.ExactResumeHook"),
    finite_loss=dict(type="kd_det.FiniteLossHook"),
    step_time=dict(type="kd_det.StepTimeHook"),
    student_export=dict(type="kd_det.StudentExportHook"),
    teacher_accuracy=dict(type="kd_det.TeacherAccuracyHook", metric="accuracy/top1"),
)

# Pairs have their weights from arXiv 2305.17007 and its code (KD++, DKD++, DIST++ and ReviewKD++;
# T = 4; KD as in KD++) and from the code of arXiv 2104.09044 (ReviewKD).
classes = dict(num_classes=100, topk=(1,))
# As published, the weights of all losses but ND grow over the first 20 epochs (there from 0, here
# from 1/20).
custom_hooks = [
    *_base_.center_hooks,
    dict(type="kd_det.LossWeightHook", schedules={_base_.warmed_loss: dict(warmup=20)}),
]
