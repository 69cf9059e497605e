"""Dense detectors of a few channels, on digits or photographs: what compare.py --pair trains."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from _photos import CHANNELS, DETECTORS, Setting
from mmengine.config import Config

from kd_det.commands.steps import Step
from kd_det.datasets.prepared import prepare
from kd_det.pairing.compose import read_pair
from kd_det.pairing.offers import find_offers, why_not
from kd_det.recipes import load_named
from kd_det.shipped import find_configs

# Teacher and student.
PAIRS = dict(gfl=("gfl", "gfl"), fcos=("fcos", "fcos"), cross=("faster", "gfl"))
BASES = dict(
    gfl="mmdet::gfl/gfl_r50_fpn_1x_coco.py",
    fcos="mmdet::fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py",
)
# Those that a pair is compared by if none are named, as far as they fit it.
DEFAULT = (
    "robust", "cwd", "pkd", "review", "kd", "kd_nd", "crosskd", "crosskd_pkd", "robust_crosskd",
    "ld",
)  # fmt: skip
# Depth, base channels: a quarter of a ResNet-50's, an eighth of a ResNet-18's.
SCRATCH = dict(teacher=(50, 16), student=(18, 8))
LITE = dict(teacher="lite2", student="lite0")
FASTER = find_configs() / "digits" / "teacher.py"
# Of their inputs; those of the weights from ImageNet, and mmdet's.
LITE_INPUT = dict(mean=[127.5] * 3, std=[127.5] * 3)
INPUT = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
# Images, and digits in them, have a quarter of COCO's size: strides, and sizes of anchors or boxes.
SMALL: dict[str, dict[str, Any]] = dict(
    gfl=dict(anchor_generator=dict(strides=[4, 8, 16, 32, 64], octave_base_scale=4)),
    fcos=dict(
        strides=[4, 8, 16, 32, 64],
        regress_ranges=((-1, 16), (16, 32), (32, 64), (64, 128), (128, 1e8)),
    ),
)


def dense(kind: str, who: str, classes: int, weights: Path | None, fine: bool) -> dict[str, Any]:
    """The config of a dense detector for images of about 200 pixels.

    Args:
        kind: Of :data:`BASES`.
        who: ``'teacher'`` or ``'student'``.
        classes: Their number.
        weights: Folder of what ``photos_weights.py`` wrote; None for ResNets from scratch.
        fine: Whether its pyramid has the strides 4 to 64 of a two-stage one, not 8 to 128.
    """
    cfg = Config.fromstring(f"_base_ = [{BASES[kind]!r}]", ".py")
    backbone, channels = _backbone(who, weights)
    width = DETECTORS["teacher"][1] if weights else 64
    head: dict[str, Any] = dict(  # alike on both sides
        num_classes=classes, in_channels=width, feat_channels=width, stacked_convs=2
    )
    model: dict[str, Any] = dict(
        data_preprocessor=dict(LITE_INPUT if weights else INPUT, bgr_to_rgb=True),
        backbone=dict(backbone, _delete_=True),
        neck=dict(in_channels=channels, out_channels=width),
        bbox_head=head,
    )
    if fine:
        model["neck"].update(start_level=0)
        head.update(SMALL[kind])
    cfg.merge_from_dict(dict(model=model))
    found: dict[str, Any] = cfg.model.to_dict()
    return found


def _backbone(who: str, weights: Path | None) -> tuple[dict[str, Any], list[int]]:
    """The config of a backbone, and the channels of its maps, of strides 4 to 32."""
    if weights:
        lite = LITE[who]
        file = str((weights / f"{lite}.pth").absolute())
        return dict(
            type="mmpretrain.TIMMBackbone",
            model_name=f"tf_efficientnet_{lite}",
            features_only=True,
            out_indices=(1, 2, 3, 4),
            init_cfg=dict(type="Pretrained", checkpoint=file),
        ), CHANNELS[lite]
    depth, base = SCRATCH[who]
    widest = base * (4 if depth >= 50 else 1)
    return dict(
        type="ResNet",
        depth=depth,
        base_channels=base,
        stem_channels=base,
        out_indices=(0, 1, 2, 3),
        norm_eval=False,
    ), [widest * 2**level for level in range(4)]


@dataclass(frozen=True)
class DensePair(Setting):
    """A pair whose student learns from the training images and is judged by the validation's.

    Args:
        pair: Of :data:`PAIRS`.
        scratch: Whether both start from random weights, as on digits; ``weights`` is not read then.
    """

    pair: str = "gfl"
    scratch: bool = True

    @cached_property
    def parts(self) -> dict[str, dict[str, Any]]:
        """Settings of the datasets; no method is chosen here, so none is held out."""
        prepared = prepare(self.data, self.root)
        prepared.require_no_errors()
        found = prepared.annotations
        return {
            name: dict(
                type="CocoDataset",
                ann_file=str(found[part].path.absolute()),
                data_prefix=dict(img=f"{found[part].images.absolute()}/"),
                metainfo=dict(classes=found["train"].classes),
            )
            for name, part in (("learn", "train"), ("choose", "val"), ("report", "val"))
        }

    def config(self, name: str, epochs: int, seed: int) -> Config:
        """The training of a detector alone."""
        cfg = super().config("teacher", epochs, seed)
        cfg.model = self._model("teacher" if name == "teacher" else "student")
        cfg.train_cfg.val_interval = epochs  # the tables have the last value alone
        if self.scratch:
            cfg.optim_wrapper.optimizer.lr = 2e-3  # as configs/digits has
            pipeline = cfg.train_dataloader.dataset.pipeline
            # A digit in a mirror is another one.
            cfg.train_dataloader.dataset.pipeline = [
                each for each in pipeline if each["type"] != "RandomFlip"
            ]
            cfg.train_dataloader.dataset.pipeline[-1] = cfg.val_dataloader.dataset.pipeline[-1]
        return cfg

    def _model(self, who: str) -> dict[str, Any]:
        kind = PAIRS[self.pair][who == "student"]
        if kind != "faster":
            weights = None if self.scratch else self.weights
            return dense(kind, who, self.classes, weights, self.scratch or self.pair == "cross")
        cfg = load_named(FASTER) if self.scratch else super().config("teacher", 1, 0)
        cfg.model.roi_head.bbox_head.num_classes = self.classes
        model: dict[str, Any] = cfg.model.to_dict()
        return model

    def fitting(self, teacher: Step, methods: tuple[str, ...]) -> list[str]:
        """Those of some methods that fit the pair."""
        plain = self.plain(1, 0)
        offers = find_offers(*read_pair(str(plain.config), str(teacher.config)))
        return [method for method in methods if not why_not(method, offers)]
