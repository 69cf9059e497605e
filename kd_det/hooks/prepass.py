"""One pass of a teacher over the training data, for :class:`kd_det.ClassCenterHook`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.runner import Runner

from kd_det.algorithms import embeddings
from kd_det.centers import ClassCenters, ClassCentersError, class_names_text, find_misfit
from kd_det.errors import InvalidInputError
from kd_det.hooks._distillation import (
    teacher_preprocessor,
    teacher_sha256,
    training_precision,
    unwrap_model,
)
from kd_det.hooks._origin import digest, digest_dataset
from kd_det.hooks._seeded_data import seeded_by_rank, spread_loader
from kd_det.progress import progress
from kd_det.version import __version__

TEACHER_KEYS = ("teacher_sha256", "class_names", "embedding", "input_sha256")
DATA_KEYS = ("dataset", "dataset_sha256")


class PrePass:
    """Gathers the class centers that a runner's losses need, or reads them.

    Losses that compare the same embedding share its centers; one pass gathers those of all
    embeddings, which are known by their source.

    Args:
        runner: Its model has a teacher and a distiller.
        rois: RoIs of a detector, ``'sampled'`` or ``'gt'``.
        max_images: Number of images to use, None for all.

    Raises:
        ValueError: If the model has no teacher, no loss uses class centers, or ``t_emb`` is no
            record of the teacher.
    """

    def __init__(self, runner: Runner, rois: str, max_images: int | None) -> None:
        self.runner = runner
        self.rois = rois
        self.max_images = max_images
        self.model: Any = unwrap_model(runner)
        if not hasattr(self.model, "teacher") or not hasattr(self.model, "distiller"):
            raise InvalidInputError(
                "ClassCenterHook needs a distillation model with a teacher and a distiller, "
                f"found {type(self.model).__name__}"
            )
        losses = self.model.distiller.distill_losses
        self.source_of = embeddings.embedding_sources(self.model)
        """Source of the embedding of each loss."""
        if not self.source_of:
            raise InvalidInputError(
                "ClassCenterHook: no distillation loss of this model uses class centers, it has "
                f"{sorted(losses)}; remove the hook or add kd_det.NDLoss"
            )
        self.losses = {name: losses[name] for name in self.source_of}
        self.embed_dims = {self.source_of[name]: x.embed_dim for name, x in self.losses.items()}
        """Size of the embedding of each source."""
        self.has_rois = hasattr(self.model.teacher, "roi_head")
        self.num_classes = next(iter(self.losses.values())).num_classes
        # The label behind the last class is background, whether or not a loss uses its mean.
        self.num_rows = self.num_classes + self.has_rois

    @property
    def class_names(self) -> list[str]:
        """Name of each row of the centers.

        Raises:
            ValueError: If the training dataset has another number of classes.
        """
        metainfo = getattr(self.runner.train_dataloader.dataset, "metainfo", {})
        names = list(metainfo.get("classes") or map(str, range(self.num_classes)))
        if len(names) != self.num_classes:
            raise InvalidInputError(
                f"the losses that use class centers expect {self.num_classes} classes, but the "
                f"training dataset has {len(names)}; set its metainfo.classes"
            )
        return names + ["background"] * self.has_rois

    @cached_property
    def origins(self) -> dict[str, dict[str, str]]:
        """All that the centers of each source depend on, as a file's metadata have it."""
        teacher = self.model.teacher
        dataset = self.runner.train_dataloader.dataset
        number = min(self.max_images or len(dataset), len(dataset))
        rules = embeddings.rules(teacher, self.rois)
        common = {
            "teacher_sha256": teacher_sha256(self.model),
            "class_names": class_names_text(self.class_names),
            "input_sha256": digest(teacher_preprocessor(self.model), rules),
            "dataset": f"{type(dataset).__name__}, {number} of {len(dataset)} images",
            "dataset_sha256": digest_dataset(dataset),
        }
        described = embeddings.describe_embeddings(self.model, self.rois)
        with training_precision(self.runner, self.model) as dtype:
            more = "" if dtype == "float32" else f", in {dtype}"
        return {source: {**common, "embedding": text + more} for source, text in described.items()}

    def find_misfit(
        self, source: str, found: Mapping[str, str], keys: Iterable[str] | None = None
    ) -> str | None:
        """Return the first entry (of ``keys``) by which metadata ``found`` are another run's."""
        origin = self.origins[source]
        return find_misfit({key: origin[key] for key in (origin if keys is None else keys)}, found)

    def read(self, source: str, path: Path, of_any_data: bool = False) -> ClassCenters:
        """Read a file of centers.

        Args:
            source: Of the embedding.
            path: The file.
            of_any_data: Whether only the teacher is compared, in the entries that the file has.

        Raises:
            ClassCentersError: If it is no such file, or does not fit losses or teacher (or data).
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
        keys = teacher_keys(centers.metadata) if of_any_data else None
        misfit = self.find_misfit(source, centers.metadata, keys)
        if misfit is not None:
            raise ClassCentersError(f"{path}: made for another run, {misfit}")
        return centers

    def run(self) -> dict[str, ClassCenters]:
        """Gather the centers of each source, over all ranks."""
        centers = {
            source: ClassCenters(
                self.num_rows, size, {**self.origins[source], "kd_det_version": __version__}
            )
            for source, size in self.embed_dims.items()
        }
        number = len(self.runner.train_dataloader.dataset)
        loader = spread_loader(self.runner, min(self.max_images or number, number))
        with seeded_by_rank(), training_precision(self.runner, self.model):
            for batch in progress(loader, "Gathering class centers"):
                for source, emb, labels in embeddings.teacher_embeddings(
                    self.model, batch, self.rois
                ):
                    centers[source].update(emb, labels)
        for gathered in centers.values():
            gathered.all_reduce()
        return centers


def teacher_keys(found: Mapping[str, str]) -> tuple[str, ...]:
    """Entries about the teacher that metadata ``found`` have.

    The published JSON form has none, and a file of an earlier version lacks ``input_sha256``.
    """
    if not found:
        return ()
    return TEACHER_KEYS if "input_sha256" in found else TEACHER_KEYS[:-1]
