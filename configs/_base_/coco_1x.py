# COCO as KD++ and ReviewKD trained on it, in mmdet's terms. They ran 180k iterations of 8 images,
# which are 12.3 passes over the 117k images that have objects, with steps at 120k and 160k (passes
# 8.2 and 10.9), lr 0.01 and short sides from 640 to 800: mmdet's 1x schedule of 12 epochs with
# steps at 8 and 11, at half its batch size and learning rate.
_base_ = [
    "mmdet::_base_/datasets/coco_detection.py",
    "mmdet::_base_/schedules/schedule_1x.py",
    "mmdet::_base_/default_runtime.py",
]

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(type="RandomResize", scale=[(1333, 640), (1333, 800)], keep_ratio=True),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackDetInputs"),
        ]
    )
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
# Whatever the number of GPUs: a wrong learning rate is a common reason for results that do not
# reproduce, so it follows the batch size unless it is told not to.
auto_scale_lr = dict(enable=True, base_batch_size=8)
default_hooks = dict(
    checkpoint=dict(save_best="coco/bbox_mAP", max_keep_ckpts=3),
    exact_resume=dict(type="kd_det.ExactResumeHook"),
    finite_loss=dict(type="kd_det.FiniteLossHook"),
    step_time=dict(type="kd_det.StepTimeHook"),
    student_export=dict(type="kd_det.StudentExportHook"),
)
