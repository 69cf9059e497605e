"""The pre-pass: gathers the teacher's class centers before the first iteration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from kd_det.centers import ClassCenters, ClassCentersError
from kd_det.errors import InvalidInputError
from kd_det.hooks._distillation import check_teacher_classes, require_alone, unwrapped
from kd_det.hooks._prepass import PrePass, own_random_numbers
from kd_det.registry import HOOKS

FILE_NAME = "class_centers.safetensors"
STATE_KEY = "kd_det_class_centers"
TEACHER_KEYS = ["teacher_sha256", "class_names", "embedding", "input_sha256"]
DATA_KEYS = ["dataset", "dataset_sha256"]


@HOOKS.register_module()
class ClassCenterHook(Hook):
    """Gives every loss that asks for class centers those of this teacher.

    Before the first iteration, the teacher runs in eval mode over the training data; the
    embeddings of its RoIs (or images) are averaged by class. What is recorded is read from the
    distiller: the ``t_emb`` argument of the losses that have ``set_centers``. Labels are those of
    the teacher's assigner; for a model without RoI head, what is recorded in the teacher where
    the losses' ``labels`` come from. The result is written to ``class_centers.safetensors`` in
    the work directory, where the next run finds it and uses it if it was gathered from the same
    teacher, input, data (annotations, pipeline, paths) and options; a resumed run compares its
    checkpoint's centers in the same way, and replaces them where they differ. Where losses compare
    embeddings of several sources, as of each stage of a cascade, there is
    ``class_centers.<source>.safetensors`` for each, all from one pass.

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
        check_teacher_classes(runner, unwrapped(runner))
        # What is found may differ between ranks, and a pre-pass needs all of them.
        if all(all_gather_object(self._checkpoint_fits(runner, prepass))):
            runner.logger.info("Class centers are those of the checkpoint")
            return
        found = self._find(runner, prepass)
        # Machines may not share the work directory.
        everywhere = all(all_gather_object(found is not None))
        centers = found if found is not None and everywhere else self.collect(runner)
        for name, loss in prepass.losses.items():
            loss.set_centers(centers[prepass.source_of[name]])
        self._origins = {source: gathered.metadata for source, gathered in centers.items()}
        for source, gathered in centers.items():
            _log_table(runner, source, gathered, prepass.class_names)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep where the centers in the losses come from."""
        checkpoint[STATE_KEY] = self._origins

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Read where the centers in the checkpoint come from; None of an earlier version."""
        self._origins = checkpoint.get(STATE_KEY)

    def collect(self, runner: Runner, out: str | Path | None = None) -> dict[str, ClassCenters]:
        """Run the pre-pass and write its result to ``out`` (default: the work directory).

        Returns:
            The centers of each embedding, by its source. Where there are several, the source is
            put into the name of each file, before its ending.
        """
        prepass = PrePass(runner, self.rois, self.max_images)
        out = Path(out or Path(runner.work_dir) / FILE_NAME)
        with own_random_numbers():
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
        for source in prepass.embeddings:
            found = self._origins.get(source, {})
            keys = _keys_of_named(found) if self.file is not None else prepass.origin(source)
            misfit = prepass.misfit(source, found, keys)
            if misfit is not None:
                runner.logger.warning(
                    "The checkpoint's class centers are not those of this teacher and data, and "
                    f"are replaced: {misfit}"
                )
                return False
        return True

    def _find(self, runner: Runner, prepass: PrePass) -> dict[str, ClassCenters] | None:
        if self.file is not None:
            paths = self._named_paths(prepass)
            centers = {s: self._load_named(runner, prepass, s, p) for s, p in paths.items()}
            runner.logger.info(f"Class centers read from {', '.join(map(str, paths.values()))}")
            return centers
        paths = _paths(Path(runner.work_dir) / FILE_NAME, prepass.embeddings)
        if not all(path.exists() for path in paths.values()):
            return None
        try:
            centers = {source: prepass.load(source, path) for source, path in paths.items()}
            for source, path in paths.items():
                _require(prepass, source, path, centers[source], prepass.origin(source))
        except ClassCentersError as error:
            runner.logger.warning(f"Class centers are gathered anew. {error}")
            return None
        found = ", ".join(map(str, paths.values()))
        runner.logger.info(f"Class centers of an earlier pre-pass read from {found}")
        return centers

    def _load_named(
        self, runner: Runner, prepass: PrePass, source: str, path: Path
    ) -> ClassCenters:
        """Read a file that the config names: of this teacher, but of any data."""
        centers = prepass.load(source, path)
        _require(prepass, source, path, centers, _keys_of_named(centers.metadata))
        other = prepass.misfit(source, centers.metadata, DATA_KEYS)
        if other is not None and path.suffix != ".json":  # which does not say
            runner.logger.warning(
                f"Class centers in {path} were gathered over other data than this run's, and are "
                f"used as the hook's file option says: {other}"
            )
        return centers

    def _named_paths(self, prepass: PrePass) -> dict[str, Path]:
        """The file that ``file`` names for each source."""
        expected = sorted(prepass.embeddings)
        if not isinstance(self.file, Mapping):
            if len(expected) > 1:
                raise InvalidInputError(
                    "ClassCenterHook: embeddings of several sources have centers of their own, "
                    f"expected file=dict with one for each of {expected}, found {self.file!r}"
                )
            return {expected[0]: Path(str(self.file))}
        if sorted(self.file) != expected:
            raise InvalidInputError(
                f"ClassCenterHook: expected file=dict with one for each of {expected}, found "
                f"those for {sorted(self.file)}"
            )
        return {source: Path(path) for source, path in self.file.items()}


def _keys_of_named(found: Mapping[str, str]) -> list[str]:
    """The entries under which a named file must fit: as many of the teacher's as it has.

    The published JSON form has none, and a file of an earlier version lacks ``input_sha256``.
    """
    if not found:
        return []
    return TEACHER_KEYS if "input_sha256" in found else TEACHER_KEYS[:-1]


def _require(
    prepass: PrePass, source: str, path: Path, centers: ClassCenters, keys: Iterable[str]
) -> None:
    misfit = prepass.misfit(source, centers.metadata, keys)
    if misfit is not None:
        raise ClassCentersError(f"{path}: made for another run, {misfit}")


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
