# KD++: ViT-B/16 teaches ResNet-18 on ImageNet.
_base_ = ["./_base_/methods/kd_nd.py", "./_base_/imagenet_r18.py"]
method = "kd_nd"

model = dict(
    architecture=_base_.student,
    teacher=dict(
        _delete_=True,
        type="mmpretrain.ImageClassifier",
        backbone=dict(
            type="mmpretrain.VisionTransformer", arch="base", img_size=224, patch_size=16
        ),
        head=dict(type="mmpretrain.VisionTransformerClsHead", num_classes=1000, in_channels=768),
    ),
    # mmpretrain's model zoo, 82.37 top-1; the paper's teacher is timm's.
    teacher_ckpt="https://download.openmmlab.com/mmclassification/v0/vit/vit-base-p16_pt-32xb128-mae_in1k_20220623-4c544545.pth",
    distiller=dict(
        # A transformer's head has its linear layer in another place.
        teacher_recorders=dict(
            embedding=dict(source="head.layers.head"), logits=dict(source="head.layers.head")
        ),
        connectors=dict(
            embedding=dict(type="kd_det.EmbeddingConnector", in_features=512, out_features=768)
        ),
        # arXiv 2305.17007 and its code, T = 1.
        distill_losses=dict(
            loss_kd=dict(loss_weight=2.0, tau=1),
            loss_nd=dict(loss_weight=1.0, num_classes=1000, embed_dim=768),
        ),
        loss_forward_mappings=dict(loss_nd=dict(s_emb=dict(connector="embedding"))),
    ),
)
custom_hooks = [
    dict(type="kd_det.ClassCenterHook"),
    dict(type="kd_det.EmbeddingMonitorHook"),
    dict(type="kd_det.LossWeightHook", schedules=dict(loss_kd=dict(warmup=5))),
]
# Two points under the zoo's figure.
default_hooks = dict(teacher_accuracy=dict(floor=80.37))
