"""Shrunk detectors of the kinds that are exported to ONNX."""

from __future__ import annotations

import torch
from mmengine.config import Config
from small import build
from small_heads import BACKBONE, shrink
from torch import nn

CONFIGS = {
    "faster": "_base_/models/faster-rcnn_r50_fpn.py",
    "cascade": "_base_/models/cascade-rcnn_r50_fpn.py",
    "retina": "retinanet/retinanet_r50_fpn_1x_coco.py",
    "fcos": "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
    "atss": "atss/atss_r50_fpn_1x_coco.py",
    "gfl": "gfl/gfl_r50_fpn_1x_coco.py",
    "rtmdet": "rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
    "yolox": "yolox/yolox_tiny_8xb8-300e_coco.py",
    "tood": "tood/tood_r50_fpn_1x_coco.py",
    "dino": "dino/dino-4scale_r50_8xb2-12e_coco.py",
    "detr": "detr/detr_r50_8xb2-150e_coco.py",
    "ddq": "ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py",
}


def model_config(name: str) -> dict:
    """mmdet's config with few channels and classes."""
    model = Config.fromstring(f'_base_ = "mmdet::{CONFIGS[name]}"', ".py").model
    shrink(model)
    if name in ("fcos", "atss", "gfl", "tood"):
        model.bbox_head.norm_cfg = dict(type="GN", num_groups=4)
    if model.backbone.type == "ResNet":
        model.backbone.update(BACKBONE)
        model.neck.in_channels = [8, 16, 32, 64][-len(model.neck.in_channels) :]
        if "encoder" in model:
            model.update(num_queries=20)
            # The encoding of boxes is made for 256 channels.
            model.neck.out_channels = 256
            model.encoder.num_layers, model.decoder.num_layers = 1, 2
            for part in (model.encoder, model.decoder):
                part.layer_cfg.ffn_cfg.feedforward_channels = 32
            model.test_cfg.max_per_img = 20
    else:
        model.backbone.update(widen_factor=0.125, init_cfg=None)
        model.neck.update(in_channels=[32, 64, 128], out_channels=16, num_csp_blocks=1)
        model.bbox_head.update(in_channels=16, feat_channels=16)
    return model


def detector(name: str, seed: int = 0) -> nn.Module:
    """With random weights that detect something, in eval mode."""
    torch.manual_seed(seed)
    model = build(model_config(name))
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        # mmdet starts scores and boxes near zero, where all detections are alike.
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            fan = module.weight[0].numel()
            module.weight.data = torch.randn(module.weight.shape, generator=generator)
            module.weight.data *= (1.5 / fan) ** 0.5
            if module.bias is not None:
                module.bias.data.zero_()
    if hasattr(model, "level_embed"):  # memory as it is found, until init_weights is called
        nn.init.normal_(model.level_embed, generator=generator)
    # Boxes of some pixels.
    if name == "rtmdet":
        for conv in model.bbox_head.rtm_reg:
            conv.weight.data *= 0.3
            conv.bias.data.fill_(1.5)
    if name == "yolox":
        for conv in model.bbox_head.multi_level_conv_reg:
            conv.weight.data *= 0.3
    # Statistics of batch norms as after a training.
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        features = model.train().extract_feat(torch.randn(4, 3, 128, 128, generator=generator))
        if name in ("rtmdet", "yolox"):
            model.bbox_head(features)
    return model.eval()
