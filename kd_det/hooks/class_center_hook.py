"""The pre-pass: gathers the teacher's class centers before the first iteration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from kd_det.centers import ClassCenters, ClassCentersError
from kd_det.errors import InvalidInputError
from kd_det.hooks._distillation import check_teacher_classes, require_alone, unwrap_model
from kd_det.hooks.prepass import DATA_KEYS, PrePass, teacher_keys
from kd_det.registry import HOOKS

FILE_NAME = "class_centers.safetensors"
STATE_KEY = "kd_det_class_centers"


@HOOKS.register_module()
class ClassCenterHook(Hook):
    """Give every loss that asks for class centers those of this teacher.

    Before the first iteration, the teacher runs in eval mode over the training data, and the
    embeddings of its RoIs (a dense head's positives, a classifier's images) are averaged by class:
    the ``t_emb`` argument of losses that have ``set_centers``, labelled by the teacher's assigner
    (or the image's label). The result is
    written to ``class_centers.safetensors`` in the work directory, and used by the next run if
    that has the same teacher, input, data (annotations, pipeline, paths) and options. A resumed
    run compares its checkpoint's centers in the same way, and replaces them where they differ.
    Embeddings of several sources, as of each stage of a cascade, are gathered in one pass and
    written to ``class_centers.<source>.safetensors``.

    Args:
        file: A file to use instead of a pre-pass (``.safetensors`` of an earlier pre-pass, or
            the published ``.json`` form); an error if it is missing or of another teacher, a
            warning if it was gathered over other data. For embeddings of several sources a
            mapping from each source to its file.
        max_images: Number of training images to use, spread evenly; None for all.
        rois: ``'sampled'``, the teacher's own proposals as its assigner and sampler choose
            them in training, so that background has a mean too; or ``'gt'``, the annotated
            boxes, without background. Only for detectors with an RoI head.

    Raises:
        ValueError: For an unknown ``rois`` or a ``max_images`` below 1.
        FileNotFoundError: If a ``file`` is missing.
    """

    priority = "NORMAL"

    def __init__(
        self,
        file: str | Mapping[str, str] | None = None,
        max_images: int | None = None,
        rois: str = "sampled",
    ) -> None:
        if rois not in ("sampled", "gt"):
            raise InvalidInputError(
                f"ClassCenterHook: expected rois 'sampled' or 'gt', found {rois!r}"
            )
        if max_images is not None and max_images < 1:
            raise InvalidInputError(
                f"ClassCenterHook: expected max_images >= 1, found {max_images}"
            )
        named = file.values() if isinstance(file, Mapping) else [file] if file else []
        for each in named:
            if not Path(each).is_file():
                raise FileNotFoundError(
                    f"ClassCenterHook: no file of class centers at {each}; leave file out for a "
                    "pre-pass, or make one with tools/collect_centers.py"
                )
        self.file = file
        self.max_images = max_images
        self.rois = rois
        self._origins: dict[str, dict[str, str]] | None = None

    def before_train(self, runner: Runner) -> None:
        """Set centers in all losses that ask for them, from a file or by a pre-pass."""
        prepass = PrePass(runner, self.rois, self.max_images)
        require_alone(runner, self)
        check_teacher_classes(runner, unwrap_model(runner))
        # What is found may differ between ranks, and a pre-pass needs all of them.
        if all(all_gather_object(self._checkpoint_fits(runner, prepass))):
            runner.logger.info("Class centers are those of the checkpoint")
            return
        found = self._read_files(runner, prepass)
        # Machines may not share the work directory.
        everywhere = all(all_gather_object(found is not None))
        centers = found if found is not None and everywhere else self._gather(runner, prepass)
        for name, loss in prepass.losses.items():
            loss.set_centers(centers[prepass.source_of[name]])
        self._origins = {source: gathered.metadata for source, gathered in centers.items()}
        for source, gathered in centers.items():
            _log_table(runner, source, gathered, prepass.class_names)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the metadata of the centers in the losses."""
        checkpoint[STATE_KEY] = self._origins

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Read the metadata of the centers in the checkpoint; None of an earlier version."""
        self._origins = checkpoint.get(STATE_KEY)

    def collect(self, runner: Runner, out: str | Path | None = None) -> dict[str, ClassCenters]:
        """Run the pre-pass and write its result to ``out`` (default: the work directory).

        Returns:
            The centers of each embedding, by its source. Where there are several, the source is
            put into the name of each file, before its ending.
        """
        return self._gather(runner, PrePass(runner, self.rois, self.max_images), out)

    def _gather(
        self, runner: Runner, prepass: PrePass, out: str | Path | None = None
    ) -> dict[str, ClassCenters]:
        out = Path(out or Path(runner.work_dir) / FILE_NAME)
        centers = prepass.run()
        for source, path in _paths(out, centers).items():
            centers[source].require_finite()  # on all ranks, so that none goes on alone
            if is_main_process():
                centers[source].save(path)
            runner.logger.info(f"Class centers written to {path}")
        return centers

    def _checkpoint_fits(self, runner: Runner, prepass: PrePass) -> bool:
        """Whether this run resumes one whose centers are of the same teacher and data."""
        if runner.iter == 0 or not all(loss.has_centers for loss in prepass.losses.values()):
            return False
        if self._origins is None:
            runner.logger.warning(
                "The checkpoint does not say what its class centers were gathered from; they are "
                "taken to be this teacher's"
            )
            return True
        for source in prepass.embed_dims:
            found = self._origins.get(source, {})
            keys = None if self.file is None else teacher_keys(found)
            misfit = prepass.find_misfit(source, found, keys)
            if misfit is not None:
                runner.logger.warning(
                    "The checkpoint's class centers are not those of this teacher and data, and "
                    f"are replaced: {misfit}"
                )
                return False
        return True

    def _read_files(self, runner: Runner, prepass: PrePass) -> dict[str, ClassCenters] | None:
        """Read the centers of each source; None where an earlier pre-pass left none that fit."""
        named = self.file is not None
        if named:
            paths = _named_paths(self.file, sorted(prepass.embed_dims))
        else:
            paths = _paths(Path(runner.work_dir) / FILE_NAME, prepass.embed_dims)
            if not all(path.exists() for path in paths.values()):
                return None
        try:
            centers = {s: prepass.read(s, path, of_any_data=named) for s, path in paths.items()}
        except ClassCentersError as error:
            if named:
                raise
            runner.logger.warning(f"Class centers are gathered again. {error}")
            return None
        for source, path in paths.items():
            other = prepass.find_misfit(source, centers[source].metadata, DATA_KEYS)
            if other is not None and path.suffix != ".json":  # which does not say
                runner.logger.warning(
                    f"Class centers in {path} were gathered over other data than this run's, and "
                    f"are used as the hook's file option says: {other}"
                )
        origin = "" if named else "of an earlier pre-pass "
        runner.logger.info(f"Class centers {origin}read from {', '.join(map(str, paths.values()))}")
        return centers


def _named_paths(file: Any, sources: list[str]) -> dict[str, Path]:
    """The file that the hook's ``file`` names for each source."""
    if isinstance(file, Mapping):
        if sorted(file) == sources:
            return {source: Path(path) for source, path in file.items()}
        found = f"those for {sorted(file)}"
    elif len(sources) == 1:
        return {sources[0]: Path(file)}
    else:
        found = repr(file)
    raise InvalidInputError(
        "ClassCenterHook: embeddings of several sources have centers of their own, expected "
        f"file=dict with one for each of {sources}, found {found}"
    )


def _paths(path: Path, sources: Iterable[str]) -> dict[str, Path]:
    """Where the centers of each source are written: ``path``, or a file beside it for each."""
    sources = list(sources)
    if len(sources) == 1:
        return {sources[0]: path}
    return {s: path.with_name(f"{path.stem}.{s}{path.suffix}") for s in sources}


def _log_table(runner: Runner, source: str, centers: ClassCenters, names: list[str]) -> None:
    norms = torch.linalg.vector_norm(centers.means, dim=1).tolist()
    counts = centers.counts.tolist()
    width = max(len(name) for name in names)
    lines = [
        f"Class centers ({centers.embed_dim}-d) of {source}:",
        f"  {'class':<{width}}     count    norm",
    ]
    lines += [f"  {n:<{width}} {c:>9} {x:>7.3f}" for n, c, x in zip(names, counts, norms)]
    runner.logger.info("\n".join(lines))
    unseen = [name for name, count in zip(names, counts) if count == 0]
    if unseen:
        runner.logger.warning(
            f"{len(unseen)} of {len(names)} classes were never seen and take no part in the "
            f"losses that use class centers: {', '.join(unseen)}"
        )
