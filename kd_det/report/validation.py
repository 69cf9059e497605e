"""The validation data on which all models of a report are compared, and the models themselves."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.evaluator import Evaluator
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from kd_det import config_files
from kd_det.errors import InvalidInputError
from kd_det.files import file_sha256
from kd_det.progress import quiet
from kd_det.report.runs import Run


class Validation:
    """Validation data and metric of a config, in the order of the data set.

    Args:
        cfg: The config of the run that the others are compared with.

    Raises:
        FileNotFoundError: If annotations or images are missing.
        ValueError: If the config has no validation.
    """

    def __init__(self, cfg: Config) -> None:
        if not cfg.get("val_dataloader") or not cfg.get("val_evaluator"):
            raise InvalidInputError(
                "a report compares on validation data, and the config has no val_*"
            )
        config_files.check_files(cfg, ("val",))
        init_default_scope(cfg.get("default_scope", "mmengine"))
        self.cfg = cfg
        self.device = get_device()
        loader = copy.deepcopy(cfg.val_dataloader)
        loader.update(
            sampler=dict(type="DefaultSampler", shuffle=False),
            persistent_workers=False,
            drop_last=False,
        )
        loader.pop("batch_sampler", None)
        with quiet():
            self.loader: DataLoader = Runner.build_dataloader(loader, seed=0)
        self.dataset: Any = self.loader.dataset

    @property
    def class_names(self) -> list[str]:
        return list(map(str, self.dataset.metainfo.get("classes") or []))

    def evaluator(self) -> Evaluator:
        """Build the config's metrics, also by class if supported."""
        metrics = copy.deepcopy(self.cfg.val_evaluator)
        for metric in _as_list(metrics):
            if config_files.type_name(metric) == "CocoMetric":
                metric["classwise"] = True
                if not isinstance(metric["metric"], str):
                    # Its results by class have no prefix: those of the last one stay.
                    metric["metric"] = sorted(metric["metric"], key="bbox".__eq__)
        with quiet():
            evaluator = Evaluator(metrics)
        evaluator.dataset_meta = self.dataset.metainfo
        return evaluator

    def model(self, run: Run) -> nn.Module:
        """Load a run's model in eval mode onto the device.

        Raises:
            kd_det.algorithms.CheckpointError: If the weights do not fit.
        """
        from kd_det.algorithms.checkpoint import load_weights

        init_default_scope(self.cfg.get("default_scope", "mmengine"))
        model = MODELS.build(self._model_config(run))
        load_weights(model, run.checkpoint, run.role)
        return model.to(self.device).eval()

    def _model_config(self, run: Run) -> ConfigDict:
        model = copy.deepcopy(run.model)
        if run.cfg.get("data_preprocessor") is not None:  # as a Runner does
            model.setdefault("data_preprocessor", run.cfg.data_preprocessor)
        return model

    def first_image(self) -> dict[str, Any]:
        """Load the first image as a batch, before any model's data preprocessor."""
        return pseudo_collate([self.dataset[0]])

    def objects(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Look up annotated boxes ``[n, 4]`` (x1, y1, x2, y2 in the file) and classes ``[n]``."""
        found = [
            (instance["bbox"], instance["bbox_label"])
            for instance in self.dataset.get_data_info(index).get("instances", [])
            if not instance.get("ignore_flag")
        ]
        boxes = np.array([box for box, _ in found], dtype=np.float32).reshape(-1, 4)
        return boxes, np.array([label for _, label in found], dtype=np.int64)

    def image_path(self, index: int) -> Path:
        return Path(self.dataset.get_data_info(index)["img_path"])

    def key(self, run: Run) -> str:
        """Compute a digest of everything that the evaluation of a run depends on."""
        metrics = self.cfg.val_evaluator
        files = [run.checkpoint]
        files += [each.get("ann_file") for each in _as_list(metrics) if each.get("ann_file")]
        # A URL is named by itself.
        digests = [file if "://" in file else file_sha256(Path(file)) for file in files]
        settings = [
            self._model_config(run), self.cfg.val_dataloader.dataset, metrics, len(self.dataset)
        ]  # fmt: skip
        text = json.dumps([settings, digests], default=repr, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _as_list(metrics: Any) -> list[Any]:
    return [metrics] if isinstance(metrics, dict) else metrics
