# Cascade R-CNN on COCO: R101-FPN teaches R50-FPN by KD and the ND loss (KD++), stage by stage: each
# of the teacher's stages scores the RoIs that the student's sampled, and has its own class centers.
_base_ = "./_base_/coco_1x.py"

stages = range(3)
embedding = {
    f"embedding{i}": dict(type="ModuleInputs", source=f"roi_head.bbox_head.{i}.fc_cls")
    for i in stages
}
logits = {
    f"logits{i}": dict(type="ModuleOutputs", source=f"roi_head.bbox_head.{i}.fc_cls")
    for i in stages
}
targets = {
    f"targets{i}": dict(type="ModuleInputs", source=f"roi_head.bbox_head.{i}.loss_cls")
    for i in stages
}
# KD++ as for the Faster R-CNN pair in arXiv 2305.17007, shared among the stages as mmdet weights
# their own losses.
stage_weights = (1, 0.5, 0.25)
kd = {
    f"loss_kd{i}": dict(type="mmrazor.KLDivergence", loss_weight=1.0 * stage_weights[i])
    for i in stages
}
nd = {
    f"loss_nd{i}": dict(
        type="kd_det.NDLoss",
        num_classes=80,
        embed_dim=1024,
        background=True,
        loss_weight=1.0 * stage_weights[i],
    )
    for i in stages
}
kd_arguments = {
    f"loss_kd{i}": dict(
        preds_S=dict(recorder=f"logits{i}", from_student=True),
        preds_T=dict(recorder=f"logits{i}", from_student=False),
    )
    for i in stages
}
nd_arguments = {
    f"loss_nd{i}": dict(
        s_emb=dict(recorder=f"embedding{i}", from_student=True, data_idx=0),
        t_emb=dict(recorder=f"embedding{i}", from_student=False, data_idx=0),
        labels=dict(recorder=f"targets{i}", from_student=True, data_idx=1),
    )
    for i in stages
}

model = dict(
    type="kd_det.RoITeacherDistill",
    architecture=dict(
        cfg_path="mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py", pretrained=False
    ),
    teacher=dict(
        cfg_path="mmdet::cascade_rcnn/cascade-rcnn_r101_fpn_20e_coco.py", pretrained=False
    ),
    teacher_stage="same",
    # mmdet's model zoo, 42.5 box AP.
    teacher_ckpt="https://download.openmmlab.com/mmdetection/v2.0/cascade_rcnn/cascade_rcnn_r101_fpn_20e_coco/cascade_rcnn_r101_fpn_20e_coco_bbox_mAP-0.425_20200504_231812-5057dcc5.pth",
    distiller=dict(
        type="mmrazor.ConfigurableDistiller",
        student_recorders=dict(**embedding, **logits, **targets),
        teacher_recorders=dict(**embedding, **logits),
        distill_losses=dict(**kd, **nd),
        loss_forward_mappings=dict(**kd_arguments, **nd_arguments),
    ),
)
custom_hooks = [dict(type="kd_det.ClassCenterHook")]
default_hooks = dict(teacher_accuracy=dict(type="kd_det.TeacherAccuracyHook", floor=0.405))
