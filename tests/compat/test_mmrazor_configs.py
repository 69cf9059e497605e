"""Every config that mmrazor ships for distilling detectors and classifiers trains.

All of them are read from the installed package and taken as they are, only with random weights
for those that would be downloaded, and small images.
"""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, DefaultScope
from torch import Tensor, nn

pytestmark = pytest.mark.usefixtures("offline")

SHIPPED = Path(importlib.util.find_spec("mmrazor").origin).parent / ".mim" / "configs" / "distill"
CONFIGS = sorted(path for kind in ("mmdet", "mmcls") for path in (SHIPPED / kind).rglob("*.py"))
FRAGMENT = "mmcls/crd/datasets/crd_cifar10_bs16.py"


def name_of(path: Path) -> str:
    return str(path.relative_to(SHIPPED))


def image_size(name: str) -> int:
    # FBKD pools by 8 what is left at stride 8; a compiled mmcv refuses to convolve a map of 2 x 2.
    return 128 if "fbkd" in name or "dcn" in name else 64


def batch_size(name: str) -> int:
    return 3 if "rkd" in name else 2  # two images have one distance and no angle


@pytest.fixture(autouse=True)
def free_memory() -> Iterator[None]:
    """A model and its recorders refer to each other; the largest take a gigabyte."""
    yield
    gc.collect()


def test_all_of_them_are_here():
    assert len(CONFIGS) == 31
    assert FRAGMENT in map(name_of, CONFIGS)


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_config_trains(path, monkeypatch):
    name = name_of(path)
    for needed, by in (("mmpretrain", "mmcls/"), ("timm", "mmcls/deit/")):
        if name.startswith(by) and importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} (extra `cls`) not installed")
    cfg = Config.fromfile(path)
    if name == FRAGMENT:
        assert cfg.train_dataloader.dataset.type == "CIFAR10"
        return

    torch.manual_seed(0)
    np.random.seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = build(cfg)
        model.train()  # MMRazor's does not return the model
        optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        if "cifar" in name:
            data = batch_of_its_dataset(cfg, monkeypatch)
        elif name.startswith("mmdet/"):
            data = detection_batch(name)
        else:
            data = classification_batch(name)
        teachers = [getattr(model, key) for key in ("teacher", "teachers") if hasattr(model, key)]
        learners = learning_parts(model)
        teachers_before = [copied(part.state_dict()) for part in teachers]
        learners_before = [copied(dict(part.named_parameters())) for part in learners]
        logs = model.train_step(data, optim_wrapper)

    assert all(torch.isfinite(torch.as_tensor(value)).all() for value in logs.values()), logs
    losses = {f"distill.{loss}" for loss in model.distiller.loss_forward_mappings}
    assert losses and losses <= logs.keys()
    assert any(logs[loss] != 0 for loss in losses)
    # The statistics of a teacher must stay as they are too, those of a student are no learning.
    assert all(same(*pair) for pair in zip(teachers_before, teachers))
    assert not any(same(*pair) for pair in zip(learners_before, learners))


def build(cfg: Config) -> nn.Module:
    """What a Runner would build, with random weights."""
    forget_checkpoints(cfg.model)
    if "data_preprocessor" in cfg:
        cfg.model.setdefault("data_preprocessor", cfg.data_preprocessor)
    model = MODELS.build(cfg.model)
    for module in model.modules():  # also of the models that are named by `cfg_path`
        init = getattr(module, "init_cfg", None)
        if isinstance(init, dict) and init["type"] == "Pretrained":
            module.init_cfg = None
    MMLogger.get_current_instance().setLevel("WARNING")  # or every parameter is reported
    model.init_weights()
    return model


def forget_checkpoints(node: object) -> None:
    """Take the checkpoints out of a config, where the packages know them."""
    if isinstance(node, dict):
        node.pop("teacher_ckpt", None)
        node.pop("ckpt_path", None)
        if node.get("pretrained"):
            if "cfg_path" in node:
                assert get_config(node["cfg_path"], pretrained=True).model_path
            node["pretrained"] = False
        for value in node.values():
            forget_checkpoints(value)


def learning_parts(model: nn.Module) -> list[nn.Module]:
    if not getattr(model, "student_trainable", True):  # factor transfer trains connectors first
        return [model.distiller]
    return [model.student] + ([model.generator] if hasattr(model, "generator") else [])


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in tensors.items()}


def same(before: dict[str, Tensor], module: nn.Module) -> bool:
    after = module.state_dict()
    return all(torch.equal(value, after[key]) for key, value in before.items())


def images(name: str) -> list[Tensor]:
    size = image_size(name)
    return list(torch.randint(256, (batch_size(name), 3, size, size), dtype=torch.uint8))


def detection_batch(name: str) -> dict:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    inputs, samples = images(name), []
    shape = inputs[0].shape[1:]
    for _ in inputs:
        sample = DetDataSample(metainfo=dict(img_shape=shape, ori_shape=shape))
        boxes = torch.tensor([[4.0, 4, 40, 44], [20, 20, 60, 60]])
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def classification_batch(name: str) -> dict:
    from mmpretrain.structures import DataSample

    inputs = images(name)
    samples = [DataSample().set_gt_label(label) for label in range(len(inputs))]
    return dict(inputs=inputs, data_samples=samples)


def batch_of_its_dataset(cfg: Config, monkeypatch: pytest.MonkeyPatch) -> dict:
    """With the config's own pipeline; that of CRD adds the negatives which its loss asks for."""
    from mmpretrain.datasets import CIFAR10

    def data_list(dataset: CIFAR10) -> list[dict]:
        image = np.random.randint(256, size=(32, 32, 3), dtype=np.uint8)
        return [dict(img=image, gt_label=index % 10) for index in range(20)]

    monkeypatch.setattr(CIFAR10, "load_data_list", data_list)  # CIFAR100 inherits it
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    return pseudo_collate([dataset[0], dataset[1]])
