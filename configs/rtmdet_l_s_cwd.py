# RTMDet on COCO: l teaches s by CWD on standardised pyramids, with the student's own 300 epochs:
# EMA, cached mosaics, and a second pipeline for the last 20, which are without a teacher.
# MMYOLO's recipe for m teaching s, tiny from s and so on: s 44.6 to 45.7 box AP by m
# (github.com/open-mmlab/mmyolo, configs/rtmdet/distillation).
_base_ = ["mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py", "./_base_/run_hooks.py"]

levels = range(3)
recorders = {
    f"map{i}": dict(type="ModuleOutputs", source=f"neck.out_convs.{i}.conv") for i in levels
}
# Zero mean and unit variance of each channel of a batch.
norm = dict(type="BN", affine=False, track_running_stats=False)
joins = {
    f"student{i}": dict(
        type="mmrazor.ConvModuleConnector",
        in_channel=128,
        out_channel=256,
        bias=False,
        norm_cfg=norm,
        act_cfg=None,
    )
    for i in levels
}
norms = {
    f"teacher{i}": dict(type="mmrazor.NormConnector", in_channels=256, norm_cfg=norm)
    for i in levels
}
model = dict(
    _delete_=True,
    type="kd_det.TeacherDistill",
    architecture=_base_.model,
    teacher=dict(cfg_path="mmdet::rtmdet/rtmdet_l_8xb32-300e_coco.py", pretrained=False),
    # mmdet's model zoo, 51.3 box AP.
    teacher_ckpt="https://download.openmmlab.com/mmdetection/v3.0/rtmdet/rtmdet_l_8xb32-300e_coco/rtmdet_l_8xb32-300e_coco_20220719_112030-5a0be7c4.pth",
    distiller=dict(
        type="mmrazor.ConfigurableDistiller",
        student_recorders=recorders,
        teacher_recorders=recorders,
        connectors=dict(**joins, **norms),
        distill_losses={
            f"loss_cwd{i}": dict(type="mmrazor.ChannelWiseDivergence", loss_weight=1.0)
            for i in levels
        },
        loss_forward_mappings={
            f"loss_cwd{i}": dict(
                preds_S=dict(recorder=f"map{i}", from_student=True, connector=f"student{i}"),
                preds_T=dict(recorder=f"map{i}", from_student=False, connector=f"teacher{i}"),
            )
            for i in levels
        },
    ),
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type="kd_det.LossWeightHook",
        schedules={f"loss_cwd{i}": dict(stop=280) for i in levels},
    ),
]
default_hooks = dict(
    teacher_accuracy=dict(type="kd_det.TeacherAccuracyHook", floor=0.493), **_base_.run_hooks
)
