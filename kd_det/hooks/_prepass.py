"""One pass of a teacher over the training data, for :class:`kd_det.ClassCenterHook`."""

from __future__ import annotations

import copy
import random
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info, get_rank
from mmengine.runner import Runner
from mmrazor.models.task_modules import ModuleInputsRecorder, ModuleOutputsRecorder
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from kd_det.centers import ClassCenters, ClassCentersError, class_names_text
from kd_det.errors import InvalidInputError
from kd_det.hooks._distillation import input_of_training, unwrapped
from kd_det.hooks._origin import dataset_digest, digest
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

    @cached_property
    def _origin(self) -> dict[str, str]:
        from kd_det.algorithms.checkpoint import weights_sha256

        dataset = self.runner.train_dataloader.dataset
        number = min(self.max_images or len(dataset), len(dataset))
        # How a teacher chooses and scores RoIs of its own.
        rules = [getattr(self.teacher, name, None) for name in ("train_cfg", "test_cfg")]
        rules = rules if self.has_rois and self.rois == "sampled" else []
        return {
            "teacher_sha256": weights_sha256(self.teacher),
            "class_names": class_names_text(self.class_names),
            "input_sha256": digest(input_of_training(self.model), rules),
            "dataset": f"{type(dataset).__name__}, {number} of {len(dataset)} images",
            "dataset_sha256": dataset_digest(dataset),
        }

    def origin(self, source: str) -> dict[str, str]:
        """All that the centers of an embedding depend on, as a file's metadata have it."""
        rois = f", RoIs {self.rois}" if self.has_rois else ""
        stage = f", teacher_stage {self.teacher_stage}" if self.teacher_stage else ""
        return {**self._origin, "embedding": f"{self.embeddings[source]}{rois}{stage}"}

    def misfit(self, source: str, found: Mapping[str, str], keys: Iterable[str]) -> str | None:
        """The first entry under which centers of origin ``found`` are not this run's."""
        expected = self.origin(source)
        for key in keys:
            if found.get(key) != expected[key]:
                return f"expected {key} {expected[key]}, found {found.get(key)}"
        return None

    def load(self, source: str, path: Path) -> ClassCenters:
        """Read a file of as many classes, and embeddings of the size, that the losses need.

        Raises:
            ClassCentersError: If it is no such file, or has others.
        """
        centers = ClassCenters.load(path, embed_dim=self.embed_dims[source])
        losses = [loss for name, loss in self.losses.items() if self.source_of[name] == source]
        background = any(getattr(loss, "background", False) for loss in losses)
        # A loss without a mean of background takes or leaves that row.
        fitting = sorted({self.num_rows, self.num_rows if background else self.num_classes})
        if centers.num_classes not in fitting:
            raise ClassCentersError(
                f"{path}: expected classes {' or '.join(map(str, fitting))}, found "
                f"{centers.num_classes}"
            )
        return centers

    @torch.no_grad()
    def run(self) -> dict[str, ClassCenters]:
        """The centers of each embedding, by its source."""
        from kd_det import __version__

        version = {"kd_det_version": __version__}
        centers = {
            source: ClassCenters(self.num_rows, dim, {**self.origin(source), **version})
            for source, dim in self.embed_dims.items()
        }
        recorders = {source: e.of_distiller for source, e in self.embeddings.items()}
        was_training = self.teacher.training
        self.teacher.eval()
        try:
            with ExitStack() as recording:
                for recorder in recorders.values():
                    recording.enter_context(recorder)
                seen = recording.enter_context(self._labels_seen())
                for batch in progress(self._loader(), "Gathering class centers"):
                    for labels in self._passes(batch, recorders.values(), seen):
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

    def _passes(self, batch: dict, recorders: Collection[Any], seen: list[Any]) -> Iterator[Tensor]:
        """Run the teacher on a batch; yields labels after each pass of its head."""
        data = self._preprocess(batch)
        inputs, samples = data["inputs"], data["data_samples"]
        if self.labels is not None:
            self.teacher(inputs, samples, mode="loss")
            found = seen[self.labels.record_idx]
            yield found if self.labels.data_idx is None else found[self.labels.data_idx]
            seen.clear()
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

    @contextmanager
    def _labels_seen(self) -> Iterator[list[Any]]:
        """What the teacher's module has, from which the losses' ``labels`` are of the student."""
        seen: list[Any] = []
        if self.labels is None:
            yield seen
            return
        if not issubclass(self.labels.recorder, (ModuleInputsRecorder, ModuleOutputsRecorder)):
            raise InvalidInputError(
                "ClassCenterHook expected the argument 'labels' to come from a ModuleInputs or "
                f"ModuleOutputs recorder, found {self.labels}"
            )
        of_inputs = issubclass(self.labels.recorder, ModuleInputsRecorder)

        def keep(module: nn.Module, inputs: Any, outputs: Any) -> None:
            seen.append(inputs if of_inputs else outputs)

        # Not a recorder of MMRazor's, whose hook stays on the module.
        handle = self.teacher.get_submodule(self.labels.source).register_forward_hook(keep)
        try:
            yield seen
        finally:
            handle.remove()

    def _loader(self) -> DataLoader:
        """The training data once, in order, each image on one rank."""
        loader = self.runner.train_dataloader
        dataset: Any = SeededDataset(loader.dataset)
        sampler = _Spread(loader.dataset, self.max_images or len(loader.dataset))
        cfg = self.runner.cfg.get("train_dataloader")
        if isinstance(cfg, dict):
            cfg = copy.deepcopy(cfg)
            cfg.update(dataset=dataset, sampler=sampler, persistent_workers=False, drop_last=False)
            return self.runner.build_dataloader(cfg, seed=0)
        return DataLoader(
            dataset,
            # None where batches are chosen by a sampler of the loader's own.
            batch_size=loader.batch_size or getattr(loader.batch_sampler, "batch_size", 1),
            sampler=sampler,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            prefetch_factor=loader.prefetch_factor,
        )


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
