"""The pre-pass: gathers the teacher's class centers before the first iteration."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from kd_det.centers import ClassCenters, ClassCentersError, class_names_text
from kd_det.hooks._progress import progress
from kd_det.registry import HOOKS

FILE_NAME = "class_centers.safetensors"


@HOOKS.register_module()
class ClassCenterHook(Hook):
    """Gives every loss that asks for class centers those of this teacher.

    Before the first iteration, the teacher runs in eval mode over the training data; the
    embeddings and labels of its RoIs (or images) are averaged by class. What is recorded is
    read from the distiller: the ``t_emb`` argument of the losses that have ``set_centers``,
    and the source of their ``labels``, looked up in the teacher. The result is written to
    ``class_centers.safetensors`` in the work directory, where the next run finds it.

    Args:
        file: A file to use instead of a pre-pass (``.safetensors`` of an earlier pre-pass, or
            the published ``.json`` form); an error if it is missing or does not fit.
        max_images: Number of training images to use, spread evenly; None for all.
        rois: ``'sampled'``, the teacher's own proposals as its assigner and sampler choose
            them in training, so that background has a mean too; or ``'gt'``, the annotated
            boxes, without background. Only for detectors with an RoI head.

    Raises:
        ValueError: For an unknown ``rois`` or a ``max_images`` below 1.
    """

    priority = "NORMAL"

    def __init__(
        self, file: str | None = None, max_images: int | None = None, rois: str = "sampled"
    ) -> None:
        if rois not in ("sampled", "gt"):
            raise ValueError(f"ClassCenterHook: expected rois 'sampled' or 'gt', found {rois!r}")
        if max_images is not None and max_images < 1:
            raise ValueError(f"ClassCenterHook: expected max_images >= 1, found {max_images}")
        if file is not None and not Path(file).is_file():
            raise FileNotFoundError(
                f"ClassCenterHook: no file of class centers at {file}; leave file out for a "
                "pre-pass, or make one with tools/collect_centers.py"
            )
        self.file = file
        self.max_images = max_images
        self.rois = rois

    def before_train(self, runner: Runner) -> None:
        """Set centers in all losses that ask for them, from a file or by a pre-pass."""
        prepass = _PrePass(runner, self.rois, self.max_images)
        centers = self._find(runner, prepass)
        if centers is None:
            centers = self.collect(runner)
        for loss in prepass.losses.values():
            loss.set_centers(centers)
        _log_table(runner, centers, prepass.class_names)

    def collect(self, runner: Runner, out: str | Path | None = None) -> ClassCenters:
        """Run the pre-pass and write its result to ``out`` (default: the work directory)."""
        prepass = _PrePass(runner, self.rois, self.max_images)
        out = Path(out or Path(runner.work_dir) / FILE_NAME)
        with _own_random_numbers():
            centers = prepass.run()
        if is_main_process():
            centers.save(out)
        runner.logger.info(f"Class centers written to {out}")
        return centers

    def _find(self, runner: Runner, prepass: _PrePass) -> ClassCenters | None:
        if self.file is not None:
            runner.logger.info(f"Class centers read from {self.file}")
            return prepass.load(Path(self.file))
        path = Path(runner.work_dir) / FILE_NAME
        if not path.exists():
            return None
        try:
            centers = prepass.load(path)
        except ClassCentersError as error:
            runner.logger.warning(f"Class centers are gathered anew. {error}")
            return None
        runner.logger.info(f"Class centers of an earlier pre-pass read from {path}")
        return centers


class _PrePass:
    """What one pre-pass needs, found in the runner's model and data."""

    def __init__(self, runner: Runner, rois: str, max_images: int | None) -> None:
        self.runner = runner
        self.rois = rois
        self.max_images = max_images
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
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
        names = list(self._dataset_meta.get("classes") or ())
        if not names:
            names = [str(i) for i in range(self.num_rows - self.has_rois)]
        return names + ["background"] * self.has_rois

    @property
    def _dataset_meta(self) -> dict[str, Any]:
        return getattr(self.runner.train_dataloader.dataset, "metainfo", {})

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

    def load(self, path: Path) -> ClassCenters:
        return ClassCenters.load(
            path, num_classes=self.num_rows, embed_dim=self.embed_dim, metadata=self.metadata
        )

    @torch.no_grad()
    def run(self) -> ClassCenters:
        loader: Any = self._loader()
        from kd_det import __version__

        centers = ClassCenters(
            self.num_rows,
            self.embed_dim,
            {
                **self.metadata,
                "dataset": f"{type(loader.dataset).__name__}, {len(loader.dataset)} images",
                "kd_det_version": __version__,
            },
        )
        recorders = {name: self._recorder(name) for name in ("embedding", "labels")}
        was_training = self.teacher.training
        self.teacher.eval()
        try:
            for batch in progress(loader, "Gathering class centers"):
                centers.update(*self._embeddings(batch, recorders))
        finally:
            self.teacher.train(was_training)
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
        return (
            embedding.get_record_data(0, self.embedding[2]),
            labels.get_record_data(0, self.labels[2]),
        )

    def _preprocess(self, batch: dict) -> dict:
        model = self.runner.model
        model = model.module if is_model_wrapper(model) else model
        return model.data_preprocessor(batch, training=True)

    def _record_of(self, argument: str) -> tuple[type, str, int | None]:
        """Recorder class, source and data index that the losses' ``argument`` comes from."""
        found = set()
        for name in self.losses:
            record = self.distiller.loss_forward_mappings[name][argument]
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
        if self.max_images is not None and self.max_images < len(dataset):
            spread = np.linspace(0, len(dataset) - 1, self.max_images)
            dataset = dataset.get_subset(spread.round().astype(int).tolist())
        cfg = copy.deepcopy(self.runner.cfg.train_dataloader)
        cfg.dataset = dataset
        cfg.sampler = dict(type="mmengine.DefaultSampler", shuffle=False, round_up=False)
        cfg.persistent_workers = False
        cfg.drop_last = False
        return self.runner.build_dataloader(cfg, seed=0)


class _Spread(Sampler):
    """``number`` images of a dataset, evenly spread, in order, each on one rank."""

    def __init__(self, dataset: Any, number: int) -> None:
        self.dataset = dataset  # batch samplers that group images by shape look into it
        rank, world_size = get_dist_info()
        chosen = np.linspace(0, len(dataset) - 1, min(number, len(dataset))).round().astype(int)
        self.indices = chosen[rank::world_size].tolist()

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """The same numbers in every pre-pass; training goes on with those that it would have had."""
    state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        seed = get_rank()
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        yield
    random.setstate(state[0])
    np.random.set_state(state[1])


def _log_table(runner: Runner, centers: ClassCenters, names: list[str]) -> None:
    norms = torch.linalg.vector_norm(centers.means, dim=1).tolist()
    counts = centers.counts.tolist()
    width = max(len(name) for name in names)
    lines = [f"Class centers ({centers.embed_dim}-d):", f"  {'class':<{width}}     count    norm"]
    lines += [f"  {n:<{width}} {c:>9} {x:>7.3f}" for n, c, x in zip(names, counts, norms)]
    runner.logger.info("\n".join(lines))
    unseen = [name for name, count in zip(names, counts) if count == 0]
    if unseen:
        runner.logger.warning(
            f"{len(unseen)} of {len(names)} classes were never seen and take no part in the "
            f"losses that use class centers: {', '.join(unseen)}"
        )
