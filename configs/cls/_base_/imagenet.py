# ImageNet under data/imagenet/, and KD++'s schedule: batch 512 on eight GPUs.
_base_ = [
    "./pair.py",
    "mmpretrain::_base_/datasets/imagenet_bs32.py",
    "mmpretrain::_base_/schedules/imagenet_bs256.py",
    "mmpretrain::_base_/default_runtime.py",
]

data_preprocessor = dict(type="mmpretrain.ClsDataPreprocessor")
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=0.2, nesterov=True))
auto_scale_lr = dict(enable=True, base_batch_size=512)
default_hooks = dict(
    checkpoint=dict(max_keep_ckpts=1, save_best="accuracy/top1"),
    exact_resume=dict(type="kd_det.ExactResumeHook"),
    finite_loss=dict(type="kd_det.FiniteLossHook"),
    step_time=dict(type="kd_det.StepTimeHook"),
    student_export=dict(type="kd_det.StudentExportHook"),
    teacher_accuracy=dict(type="kd_det.TeacherAccuracyHook", metric="accuracy/top1"),
)

# Pairs have their weights from arXiv 2305.17007 and its code (KD++, DKD++, ReviewKD++; T = 1; KD as
# in KD++), arXiv 2205.10536 (DIST, beside the ND weight of KD++, as none is published for DIST++)
# and mdistiller (ReviewKD).
classes = dict(num_classes=1000, topk=(1, 5))
# As published, the weights of all losses but ND grow over the first 5 epochs (there from 0, here
# from 1/5).
custom_hooks = [
    *_base_.center_hooks,
    dict(type="kd_det.LossWeightHook", schedules={_base_.warmed_loss: dict(warmup=5)}),
]
