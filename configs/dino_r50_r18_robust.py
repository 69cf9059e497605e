# DINO on COCO: R50 teaches R18 by CWD on the maps that enter the encoder, at a temperature relative
# to the teacher; encoder, decoder and head start from the teacher's. No weights are published for
# such a pair. 12 epochs of 16 images, as mmdet trains DINO.
_base_ = ["mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py", "./_base_/run_hooks.py"]

model = dict(
    _delete_=True,
    type="kd_det.TeacherDistill",
    architecture=dict(
        _base_.model,
        backbone=dict(
            _base_.model.backbone,
            depth=18,
            init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet18"),
        ),
        neck=dict(_base_.model.neck, in_channels=[128, 256, 512]),
    ),
    teacher=dict(_base_.model.deepcopy(), backbone=dict(_base_.model.backbone, init_cfg=None)),
    # mmdet's model zoo, 49.0 box AP.
    teacher_ckpt="https://download.openmmlab.com/mmdetection/v3.0/dino/dino-4scale_r50_8xb2-12e_coco/dino-4scale_r50_8xb2-12e_coco_20221202_182705-55b2bba2.pth",
    init_student_from_teacher=[
        *("encoder", "decoder", "bbox_head"),
        *("query_embedding", "memory_trans_fc", "memory_trans_norm"),
    ],
    distiller=dict(
        type="mmrazor.ConfigurableDistiller",
        student_recorders=dict(fpn=dict(type="ModuleOutputs", source="neck")),
        teacher_recorders=dict(fpn=dict(type="ModuleOutputs", source="neck")),
        distill_losses=dict(
            loss_cwd=dict(type="kd_det.CWDLoss", loss_weight=10.0, tau=0.5, relative=True)
        ),
        loss_forward_mappings=dict(
            loss_cwd=dict(
                s_feats=dict(recorder="fpn", from_student=True),
                t_feats=dict(recorder="fpn", from_student=False),
            )
        ),
    ),
)
# The student's own multiplier of the backbone's rate, under the name that it has here.
optim_wrapper = dict(constructor="kd_det.DistillOptimWrapperConstructor")
default_hooks = dict(
    teacher_accuracy=dict(type="kd_det.TeacherAccuracyHook", floor=0.47), **_base_.run_hooks
)
