"""A pre-pass that fits the student's FPN to the teacher's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import DataLoader

from kd_det.algorithms.neck_fit import NeckFit
from kd_det.errors import InvalidInputError
from kd_det.hooks._distillation import require_distillation, training_precision
from kd_det.hooks._seeded_data import seeded_by_rank, spread_loader
from kd_det.progress import progress
from kd_det.registry import HOOKS


@HOOKS.register_module()
class NeckFitHook(Hook):
    """Let the student's FPN start where its own backbone explains most of the teacher's.

    Before the first iteration, both backbones run over training images, and each lateral
    convolution of the student's FPN is set to the least-squares solution towards the output of the
    teacher's (:class:`kd_det.algorithms.neck_fit.NeckFit`). Everything behind it starts from the
    teacher, which the model's config asks for:

    .. code-block:: python

        model = dict(init_student_from_teacher=["neck", "rpn_head", "roi_head"])
        custom_hooks = [dict(type="kd_det.NeckFitHook")]

    A resumed training, and one with ``load_from``, keeps the weights of its checkpoint.

    Args:
        max_images: Number of training images, spread evenly over the data.

    Raises:
        ValueError: If ``max_images`` is below 1.
        kd_det.algorithms.WiringError: When training begins, if the two FPNs differ in more than the
            channels of their backbones.
    """

    priority = "NORMAL"  # after TeacherAccuracyHook: fitting to a bad teacher would be in vain

    def __init__(self, max_images: int = 256) -> None:
        if max_images < 1:
            raise InvalidInputError(f"NeckFitHook: expected max_images >= 1, found {max_images}")
        self.max_images = max_images

    def before_train(self, runner: Runner) -> None:
        """Fit, unless the student's weights come from a checkpoint."""
        model = require_distillation(runner, "NeckFitHook")
        fit = NeckFit(model.student, model.teacher)
        if runner.iter > 0 or runner._load_from is not None:
            return
        with _in_modes(model), seeded_by_rank(), training_precision(runner, model):
            for batch in progress(self._loader(runner), "Fitting the FPN"):
                # Not as in training, where images may be mixed.
                data = model.data_preprocessor(batch, training=False)
                fit.update(data["inputs"], _teacher_images(model, data))
        fit.all_reduce()
        shares = ", ".join(f"{share:.0%}" for share in fit.solve())
        runner.logger.info(
            "The student's FPN is fitted to the teacher's; of the variance of its lateral "
            f"convolutions' outputs, fine to deep, it starts with {shares}"
        )

    def _loader(self, runner: Runner) -> DataLoader:
        ranks = get_world_size()
        number = min(self.max_images, len(runner.train_dataloader.dataset))
        # As many on each rank: batch norms in training may wait for one another.
        return spread_loader(runner, ranks * math.ceil(number / ranks))


def _teacher_images(model: Any, data: Mapping[str, Any]) -> Tensor:
    """The batch as the teacher takes it; MMRazor's algorithms give it the student's."""
    if not hasattr(model, "teacher_input"):
        return data["inputs"]
    return model.teacher_input(data["inputs"], data["data_samples"])


@contextmanager
def _in_modes(model: Any) -> Iterator[None]:
    """Student in train mode, as it will be, but for what its batch norms count; teacher in eval."""
    sides = [model.student, model.teacher]
    modes = [side.training for side in sides]
    kept = [(buffer, buffer.clone()) for buffer in model.student.buffers()]
    model.student.train()
    model.teacher.eval()
    try:
        yield
    finally:
        for side, mode in zip(sides, modes):
            side.train(mode)
        for buffer, value in kept:
            buffer.copy_(value)
