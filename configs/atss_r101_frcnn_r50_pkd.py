# Across kinds on COCO: ATSS with R101-FPN teaches Faster R-CNN with R50-FPN by PKD, on the levels
# that both have, of strides 8 to 64.
_base_ = ["./_base_/frcnn_pair.py", "./_base_/coco_1x.py"]

levels = range(4)
model = dict(
    teacher=dict(_delete_=True, cfg_path="mmdet::atss/atss_r101_fpn_1x_coco.py", pretrained=False),
    # mmdet's model zoo, 41.5 box AP.
    teacher_ckpt="https://download.openmmlab.com/mmdetection/v2.0/atss/atss_r101_fpn_1x_coco/atss_r101_fpn_1x_20200825-dfcadd6f.pth",
    distiller=dict(
        student_recorders=dict(_delete_=True, fpn=dict(type="ModuleOutputs", source="neck")),
        teacher_recorders=dict(_delete_=True, fpn=dict(type="ModuleOutputs", source="neck")),
        # PKD's weight for Faster R-CNN in MMRazor's recipe, arXiv 2207.02039.
        distill_losses={
            f"loss_pkd{i}": dict(type="mmrazor.PKDLoss", loss_weight=6) for i in levels
        },
        loss_forward_mappings={
            f"loss_pkd{i}": dict(
                preds_S=dict(recorder="fpn", from_student=True, data_idx=i + 1),
                preds_T=dict(recorder="fpn", from_student=False, data_idx=i),
            )
            for i in levels
        },
    ),
)
default_hooks = dict(teacher_accuracy=dict(type="kd_det.TeacherAccuracyHook", floor=0.395))
