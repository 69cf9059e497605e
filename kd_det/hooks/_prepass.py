"""One pass of a teacher over the training data, for :class:`kd_det.ClassCenterHook`."""

from __future__ import annotations

import copy
import random
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info, get_rank
from mmengine.runner import Runner
from mmrazor.models.task_modules import ModuleInputsRecorder, ModuleOutputsRecorder
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from kd_det.centers import ClassCenters, class_names_text
from kd_det.errors import InvalidInputError
from kd_det.hooks._distillation import unwrapped
from kd_det.hooks._progress import progress
from kd_det.hooks._seeded_data import SeededDataset, SeededIndex


@dataclass(frozen=True)
class Record:
    """What is recorded of the teacher."""

    recorder: type
    source: str
    data_idx: int | None
    record_idx: int
    of_distiller: Any = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.recorder.__name__} {self.source}[{self.data_idx}]"


class PrePass:
    """What one pre-pass needs, found in the runner's model and data.

    Losses that compare the same embedding share its centers; one pass gathers all of them.
    Records are known by the source of their recorder.
    """

    def __init__(self, runner: Runner, rois: str, max_images: int | None) -> None:
        self.runner = runner
        self.rois = rois
        self.max_images = max_images
        model = unwrapped(runner)
        if not hasattr(model, "teacher") or not hasattr(model, "distiller"):
            raise InvalidInputError(
                "ClassCenterHook needs a distillation model with a teacher and a distiller, "
                f"found {type(model).__name__}"
            )
        self.model: Any = model
        self.teacher: nn.Module = model.teacher
        self.distiller: Any = model.distiller
        self.losses = {
            name: loss
            for name, loss in self.distiller.distill_losses.items()
            if hasattr(loss, "set_centers")
        }
        if not self.losses:
            raise InvalidInputError(
                "ClassCenterHook: no distillation loss of this model uses class centers, it has "
                f"{sorted(self.distiller.distill_losses)}; remove the hook or add kd_det.NDLoss"
            )
        self.has_rois = hasattr(self.teacher, "roi_head")
        self.teacher_stage = self._teacher_stage() if self.has_rois else None
        self.num_classes = next(iter(self.losses.values())).num_classes
        # The label behind the last class is background, whether or not a loss uses its mean.
        self.num_rows = self.num_classes + self.has_rois
        self.source_of: dict[str, str] = {}
        self.labels = None if self.has_rois else self._record_of_labels()
        self.embeddings: dict[str, Record] = {}
        self.embed_dims: dict[str, int] = {}
        for name, loss in self.losses.items():
            found = self._record(name, "t_emb")
            self.source_of[name] = found.source
            if self.embeddings.setdefault(found.source, found) != found:
                raise InvalidInputError(
                    "ClassCenterHook gathers one embedding from each source, but distillation "
                    f"loss '{name}' is given {found}, and another {self.embeddings[found.source]}"
                )
            self.embed_dims.setdefault(found.source, loss.embed_dim)

    @property
    def class_names(self) -> list[str]:
        names = list(self._dataset_meta.get("classes") or map(str, range(self.num_classes)))
        if len(names) != self.num_classes:
            raise InvalidInputError(
                f"the losses that use class centers expect {self.num_classes} classes, but the "
                f"training dataset has {len(names)}; set its metainfo.classes"
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

    def metadata(self, source: str) -> dict[str, str]:
        """What a file of centers must say of its origin to fit this run."""
        from kd_det.algorithms.checkpoint import weights_sha256

        rois = f", RoIs {self.rois}" if self.has_rois else ""
        stage = f", teacher_stage {self.teacher_stage}" if self.teacher_stage else ""
        return {
            "teacher_sha256": weights_sha256(self.teacher),
            "class_names": class_names_text(self.class_names),
            "embedding": f"{self.embeddings[source]}{rois}{stage}",
        }

    def load(self, source: str, path: Path, **metadata: str) -> ClassCenters:
        return ClassCenters.load(
            path,
            num_classes=self.num_rows,
            embed_dim=self.embed_dims[source],
            metadata={**self.metadata(source), **metadata},
        )

    @torch.no_grad()
    def run(self) -> dict[str, ClassCenters]:
        """The centers of each embedding, by its source."""
        from kd_det import __version__

        more = {"dataset": self.dataset_text, "kd_det_version": __version__}
        centers = {
            source: ClassCenters(self.num_rows, dim, {**self.metadata(source), **more})
            for source, dim in self.embed_dims.items()
        }
        recorders = {source: e.of_distiller for source, e in self.embeddings.items()}
        labels_recorder = self._labels_recorder() if self.labels is not None else None
        was_training = self.teacher.training
        self.teacher.eval()
        try:
            with ExitStack() as recording:
                for recorder in recorders.values():
                    recording.enter_context(recorder)
                for batch in progress(self._loader(), "Gathering class centers"):
                    for labels in self._passes(batch, recorders.values(), labels_recorder):
                        self._update(centers, recorders, labels)
        finally:
            self.teacher.train(was_training)
            for recorder in recorders.values():
                recorder.reset_data_buffer()
        for gathered in centers.values():
            gathered.all_reduce()
        return centers

    def _update(
        self, centers: dict[str, ClassCenters], recorders: dict[str, Any], labels: Tensor
    ) -> None:
        """Add what was recorded while RoIs (or images) of ``labels`` were scored."""
        for source, recorder in recorders.items():
            # A pass of one stage of a cascade is none of another's.
            if recorder.data_buffer:
                record = self.embeddings[source]
                embedding = recorder.get_record_data(record.record_idx, record.data_idx)
                centers[source].update(embedding, labels)
                recorder.reset_data_buffer()

    def _passes(
        self, batch: dict, recorders: Collection[Any], labels: Any | None
    ) -> Iterator[Tensor]:
        """Run the teacher on a batch; yields labels after each pass of its head."""
        data = self._preprocess(batch)
        inputs, samples = data["inputs"], data["data_samples"]
        if self.labels is not None and labels is not None:
            with labels:
                self.teacher(inputs, samples, mode="loss")
            yield labels.get_record_data(self.labels.record_idx, self.labels.data_idx)
            labels.reset_data_buffer()
            return
        from kd_det.algorithms import roi

        score = roi.score_ground_truth if self.rois == "gt" else roi.score_proposals
        with roi.samplers_unrecorded(self.teacher, recorders):
            yield from score(self.teacher, inputs, samples, self.teacher_stage)

    def _preprocess(self, batch: dict) -> dict:
        # Not as in training: mixed images would have no class.
        data = self.model.data_preprocessor(batch, training=False)
        for sample in data["data_samples"]:
            # mmpretrain's, made for mixing: integers while nothing is mixed, which no loss takes.
            if "gt_label" in sample and "gt_score" in sample:
                del sample.gt_score
        if hasattr(self.model, "teacher_input"):
            data["inputs"] = self.model.teacher_input(data["inputs"], data["data_samples"])
        return data

    def _teacher_stage(self) -> str | None:
        from kd_det.algorithms import heads

        heads.require_two_stage(self.teacher, "teacher")
        if hasattr(self.model, "teacher_stage"):
            return self.model.teacher_stage
        # An algorithm of MMRazor's, whose teacher scores RoIs of its own.
        return heads.choose_stage(None, self.teacher, self.teacher)

    def _record(self, name: str, argument: str) -> Record:
        """Where the ``argument`` of the loss of this ``name`` is recorded."""
        record = self.distiller.loss_forward_mappings[name].get(argument)
        if record is None or record.get("connector"):
            raise InvalidInputError(
                f"ClassCenterHook gathers what '{argument}' of distillation loss '{name}' is "
                f"given, expected a record without a connector, found {record}"
            )
        side = "student" if record["from_student"] else "teacher"
        recorder = getattr(self.distiller, f"{side}_recorders").recorders[record["recorder"]]
        # In a pass over RoIs, which are those of one stage, there is one record.
        call = 0 if self.has_rois else record.get("record_idx", 0)
        return Record(type(recorder), recorder.source, record.get("data_idx"), call, recorder)

    def _record_of_labels(self) -> Record:
        found = {self._record(name, "labels") for name in self.losses}
        if len(found) > 1:
            raise InvalidInputError(
                "ClassCenterHook reads one kind of labels, but the argument 'labels' of "
                f"{sorted(self.losses)} comes from {sorted(map(str, found))}"
            )
        return found.pop()

    def _labels_recorder(self) -> Any:
        """What records in the teacher what the losses' ``labels`` are of the student."""
        assert self.labels is not None
        if not issubclass(self.labels.recorder, (ModuleInputsRecorder, ModuleOutputsRecorder)):
            raise InvalidInputError(
                "ClassCenterHook expected the argument 'labels' to come from a ModuleInputs or "
                f"ModuleOutputs recorder, found {self.labels}"
            )
        recorder = self.labels.recorder(self.labels.source)
        recorder.initialize(self.teacher)
        return recorder

    def _loader(self) -> DataLoader:
        """The training data once, in order, each image on one rank."""
        dataset = self.runner.train_dataloader.dataset
        cfg = copy.deepcopy(self.runner.cfg.train_dataloader)
        cfg.dataset = SeededDataset(dataset)
        cfg.sampler = _Spread(dataset, self.max_images or len(dataset))
        cfg.persistent_workers = False
        cfg.drop_last = False
        return self.runner.build_dataloader(cfg, seed=0)


class _Spread(Sampler):
    """``number`` images of a dataset, evenly spread, in order, each on one rank.

    Each is augmented with numbers of its own, on whatever rank and by whatever worker.
    """

    def __init__(self, dataset: Any, number: int) -> None:
        super().__init__()
        self.dataset = dataset  # batch samplers that group images by shape look into it
        rank, world_size = get_dist_info()
        chosen = np.linspace(0, len(dataset) - 1, min(number, len(dataset))).round().astype(int)
        self.indices = [SeededIndex.at(index, index) for index in chosen[rank::world_size].tolist()]

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
