# What each recipe adds to mmdet's default hooks: default_hooks = _base_.run_hooks
run_hooks = dict(
    checkpoint=dict(save_best="coco/bbox_mAP", max_keep_ckpts=3),
    exact_resume=dict(type="kd_det.ExactResumeHook"),
    finite_loss=dict(type="kd_det.FiniteLossHook"),
    step_time=dict(type="kd_det.StepTimeHook"),
    student_export=dict(type="kd_det.StudentExportHook"),
)
