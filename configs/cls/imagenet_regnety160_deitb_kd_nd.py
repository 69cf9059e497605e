# KD++: RegNetY-16GF teaches DeiT-B with a distillation token on ImageNet, in MMRazor's own config
# (and with its schedule). The token learns the class that the teacher chooses, the mean of both
# tokens its class means; weights of arXiv 2305.17007. Mixup and CutMix mix the class means as they
# mix the labels.
_base_ = "mmrazor::distill/mmcls/deit/deit-base_regnety160_pt-16xb64_in1k.py"

model = dict(
    architecture=dict(head=dict(loss=dict(loss_weight=1.0))),
    distiller=dict(
        student_recorders=dict(
            tokens=dict(
                type="kd_det.Pyramid",
                levels=[
                    dict(type="ModuleInputs", source="head.layers.head", data_idx=0),
                    dict(type="ModuleInputs", source="head.layers.head_dist", data_idx=0),
                ],
            ),
            targets=dict(type="ModuleInputs", source="head.loss_module"),
        ),
        teacher_recorders=dict(embedding=dict(type="ModuleInputs", source="head.fc")),
        connectors=dict(
            embedding=dict(type="kd_det.EmbeddingConnector", in_features=768, out_features=3024)
        ),
        distill_losses=dict(
            loss_nd=dict(type="kd_det.NDLoss", num_classes=1000, embed_dim=3024, loss_weight=1.5),
        ),
        loss_forward_mappings=dict(
            loss_nd=dict(
                s_emb=dict(recorder="tokens", from_student=True, connector="embedding"),
                t_emb=dict(recorder="embedding", from_student=False, data_idx=0),
                labels=dict(recorder="targets", from_student=True, data_idx=1),
            )
        ),
    ),
)
custom_hooks = [
    dict(type="EMAHook", momentum=4e-5, priority="ABOVE_NORMAL"),  # mmpretrain's for DeiT-B
    dict(type="kd_det.ClassCenterHook"),
    dict(type="kd_det.EmbeddingMonitorHook"),
    dict(type="kd_det.LossWeightHook", schedules=dict(loss_distill=dict(warmup=5))),
]
