"""One pass of a teacher over the training data, for :class:`kd_det.ClassCenterHook`."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info, get_rank
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, Sampler

from kd_det.centers import ClassCenters, class_names_text
from kd_det.hooks._progress import progress


class PrePass:
    """What one pre-pass needs, found in the runner's model and data."""

    def __init__(self, runner: Runner, rois: str, max_images: int | None) -> None:
        self.runner = runner
        self.rois = rois
        self.max_images = max_images
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not hasattr(model, "teacher") or not hasattr(model, "distiller"):
            raise ValueError(
                "ClassCenterHook needs a distillation model with a teacher and a distiller, "
                f"found {type(model).__name__}"
            )
        self.teacher: nn.Module = model.teacher
        self.distiller: Any = model.distiller
        self.losses = {
            name: loss
            for name, loss in self.distiller.distill_losses.items()
            if hasattr(loss, "set_centers")
        }
        if not self.losses:
            raise ValueError(
                "ClassCenterHook: no distillation loss of this model uses class centers, it has "
                f"{sorted(self.distiller.distill_losses)}; remove the hook or add kd_det.NDLoss"
            )
        self.has_rois = hasattr(self.teacher, "roi_head")
        first = next(iter(self.losses.values()))
        # The label behind the last class is background, whether or not a loss uses its mean.
        self.num_rows = first.num_classes + self.has_rois
        self.embed_dim = first.embed_dim
        self.embedding = self._record_of("t_emb")
        self.labels = self._record_of("labels")

    @property
    def class_names(self) -> list[str]:
        expected = self.num_rows - self.has_rois
        names = list(self._dataset_meta.get("classes") or map(str, range(expected)))
        if len(names) != expected:
            raise ValueError(
                f"the losses that use class centers expect {expected} classes, but the training "
                f"dataset has {len(names)}; set its metainfo.classes"
            )
        return names + ["background"] * self.has_rois

    @property
    def _dataset_meta(self) -> dict[str, Any]:
        return getattr(self.runner.train_dataloader.dataset, "metainfo", {})

    @property
    def dataset_text(self) -> str:
        dataset = self.runner.train_dataloader.dataset
        number = min(self.max_images or len(dataset), len(dataset))
        return f"{type(dataset).__name__}, {number} of {len(dataset)} images"

    @property
    def metadata(self) -> dict[str, str]:
        """What a file of centers must say of its origin to fit this run."""
        from kd_det.algorithms.checkpoint import weights_sha256

        kind, source, index = self.embedding
        rois = f", RoIs {self.rois}" if self.has_rois else ""
        return {
            "teacher_sha256": weights_sha256(self.teacher),
            "class_names": class_names_text(self.class_names),
            "embedding": f"{kind.__name__} {source}[{index}]{rois}",
        }

    def load(self, path: Path, **metadata: str) -> ClassCenters:
        return ClassCenters.load(
            path,
            num_classes=self.num_rows,
            embed_dim=self.embed_dim,
            metadata={**self.metadata, **metadata},
        )

    @torch.no_grad()
    def run(self) -> ClassCenters:
        from kd_det import __version__

        centers = ClassCenters(
            self.num_rows,
            self.embed_dim,
            {
                **self.metadata,
                "dataset": self.dataset_text,
                "kd_det_version": __version__,
            },
        )
        recorders = {name: self._recorder(name) for name in ("embedding", "labels")}
        was_training = self.teacher.training
        self.teacher.eval()
        try:
            for batch in progress(self._loader(), "Gathering class centers"):
                centers.update(*self._embeddings(batch, recorders))
        finally:
            self.teacher.train(was_training)
            for recorder in recorders.values():
                recorder.reset_data_buffer()
        centers.all_reduce()
        return centers

    def _embeddings(self, batch: dict, recorders: dict[str, Any]) -> tuple:
        """Embeddings ``[N, D]`` and labels ``[N]`` of one batch."""
        data = self._preprocess(batch)
        inputs, samples = data["inputs"], data["data_samples"]
        embedding, labels = recorders["embedding"], recorders["labels"]
        with embedding, labels:
            if not self.has_rois:
                self.teacher(inputs, samples, mode="loss")
            elif self.rois == "gt":
                from kd_det.algorithms.roi import score_ground_truth

                gt_labels = score_ground_truth(self.teacher, inputs, samples)
                return embedding.get_record_data(0, self.embedding[2]), gt_labels
            else:
                from kd_det.algorithms.roi import sample_and_score

                sample_and_score(self.teacher, inputs, samples)
                if not embedding.data_buffer:
                    return torch.zeros(0, self.embed_dim), torch.zeros(0, dtype=torch.int64)
        return (
            embedding.get_record_data(0, self.embedding[2]),
            labels.get_record_data(0, self.labels[2]),
        )

    def _preprocess(self, batch: dict) -> dict:
        model = self.runner.model
        model = model.module if is_model_wrapper(model) else model
        # Not as in training: mixed images would have no class.
        return model.data_preprocessor(batch, training=False)

    def _record_of(self, argument: str) -> tuple[type, str, int | None]:
        """Recorder class, source and data index that the losses' ``argument`` comes from."""
        found = set()
        for name in self.losses:
            record = self.distiller.loss_forward_mappings[name].get(argument)
            if record is None or record.get("connector"):
                raise ValueError(
                    f"ClassCenterHook gathers what '{argument}' of distillation loss '{name}' is "
                    f"given, expected a record without a connector, found {record}"
                )
            side = "student" if record["from_student"] else "teacher"
            recorder = getattr(self.distiller, f"{side}_recorders").recorders[record["recorder"]]
            found.add((type(recorder), recorder.source, record.get("data_idx")))
        if len(found) > 1:
            raise ValueError(
                f"ClassCenterHook gathers one kind of embedding, but the argument '{argument}' "
                f"of {sorted(self.losses)} comes from {sorted(f[1] for f in found)}"
            )
        return found.pop()

    def _recorder(self, name: str) -> Any:
        kind, source, _ = getattr(self, name)
        recorder = kind(source)
        recorder.initialize(self.teacher)
        return recorder

    def _loader(self) -> DataLoader:
        """The training data once, in order, each image on one rank."""
        dataset = self.runner.train_dataloader.dataset
        cfg = copy.deepcopy(self.runner.cfg.train_dataloader)
        cfg.dataset = dataset
        cfg.sampler = _Spread(dataset, self.max_images or len(dataset))
        cfg.persistent_workers = False
        cfg.drop_last = False
        return self.runner.build_dataloader(cfg, seed=0)


class _Spread(Sampler):
    """``number`` images of a dataset, evenly spread, in order, each on one rank."""

    def __init__(self, dataset: Any, number: int) -> None:
        super().__init__()
        self.dataset = dataset  # batch samplers that group images by shape look into it
        rank, world_size = get_dist_info()
        chosen = np.linspace(0, len(dataset) - 1, min(number, len(dataset))).round().astype(int)
        self.indices = chosen[rank::world_size].tolist()

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


@contextmanager
def own_random_numbers() -> Iterator[None]:
    """The same numbers in every pre-pass; training goes on with those that it would have had."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        seed = get_rank()
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
