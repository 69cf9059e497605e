"""The pre-pass: gathers the teacher's class centers before the first iteration."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from kd_det.centers import ClassCenters, ClassCentersError
from kd_det.hooks._prepass import PrePass, own_random_numbers
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
        prepass = PrePass(runner, self.rois, self.max_images)
        found = self._find(runner, prepass)
        # Machines may not share the work directory; a pre-pass needs all ranks.
        everywhere = all(all_gather_object(found is not None))
        centers = found if found is not None and everywhere else self.collect(runner)
        for loss in prepass.losses.values():
            loss.set_centers(centers)
        _log_table(runner, centers, prepass.class_names)

    def collect(self, runner: Runner, out: str | Path | None = None) -> ClassCenters:
        """Run the pre-pass and write its result to ``out`` (default: the work directory)."""
        prepass = PrePass(runner, self.rois, self.max_images)
        out = Path(out or Path(runner.work_dir) / FILE_NAME)
        with own_random_numbers():
            centers = prepass.run()
        if is_main_process():
            centers.save(out)
        runner.logger.info(f"Class centers written to {out}")
        return centers

    def _find(self, runner: Runner, prepass: PrePass) -> ClassCenters | None:
        if self.file is not None:
            runner.logger.info(f"Class centers read from {self.file}")
            return prepass.load(Path(self.file))
        path = Path(runner.work_dir) / FILE_NAME
        if not path.exists():
            return None
        try:
            # A pre-pass over other or fewer images is not what this run asks for.
            centers = prepass.load(path, dataset=prepass.dataset_text)
        except ClassCentersError as error:
            runner.logger.warning(f"Class centers are gathered anew. {error}")
            return None
        runner.logger.info(f"Class centers of an earlier pre-pass read from {path}")
        return centers


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
