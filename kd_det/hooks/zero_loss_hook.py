"""Says early in a training which distillation losses do nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mmengine.hooks import Hook
from mmengine.runner import Runner

from kd_det.errors import InvalidInputError
from kd_det.hooks._distillation import DISTILL_PREFIX, require_distillation
from kd_det.registry import HOOKS

# A loss that is 0 for so many iterations is not waiting for a lucky batch.
ITERATIONS = 50
# In units of the other losses: KL and cosines of equal things are 0 but for rounding.
ROUNDING = 1e-6


class ZeroReason(NamedTuple):
    """Why a loss is 0."""

    text: str
    meant: bool

    def __str__(self) -> str:
        return f"{'since' if self.meant else 'likely reason:'} {self.text}"


@HOOKS.register_module()
class ZeroLossHook(Hook):
    """Warn once of distillation losses that were 0, but for rounding, in the first iterations.

    A wrong recorder or empty class centers raise no error: the student learns without a teacher.
    It reads what MMEngine keeps of the losses, in one iteration. ``kd-det doctor`` says the same
    of a finished training.

    Args:
        iterations: After how many iterations to look.

    Raises:
        ValueError: If ``iterations`` is below 1; when training begins, for a model without a
            distiller.
    """

    priority = "LOW"

    def __init__(self, iterations: int = ITERATIONS) -> None:
        if iterations < 1:
            raise InvalidInputError(f"ZeroLossHook: expected iterations >= 1, found {iterations}")
        self.iterations = iterations

    def before_train(self, runner: Runner) -> None:
        """Refuse a model without distillation."""
        require_distillation(runner, "ZeroLossHook")

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Look at the losses of all iterations, once."""
        if runner.iter + 1 != self.iterations:
            return
        start = f"train/{DISTILL_PREFIX}"
        scalars = runner.message_hub.log_scalars
        # The largest of all losses together: a step without objects has none.
        least = (
            ROUNDING * abs(scalars["train/loss"].data[0]).max() if "train/loss" in scalars else 0
        )
        for key, history in scalars.items():
            values, _ = history.data
            if key.startswith(start) and (abs(values) <= least).all():
                name = key[len(start) :]
                weights = runner.message_hub.log_scalars.get(f"train/weight/{name}")
                held = weights is not None and not weights.data[0].any()
                reason = explain_zero(name, runner.cfg.get("model") or {}, held)
                runner.logger.warning(
                    f"{name} was 0 in the first {self.iterations} iterations; {reason}"
                )


def explain_zero(name: str, model: Mapping[str, Any], held: bool) -> ZeroReason:
    """Find the likely reason of a distillation loss that is 0.

    Args:
        name: Its name in the distiller.
        model: The config of the distillation's model.
        held: Whether :class:`kd_det.LossWeightHook` held its weight at 0.
    """
    distiller = model.get("distiller") or {}
    config = (distiller.get("distill_losses") or {}).get(name) or {}
    inputs = (distiller.get("loss_forward_mappings") or {}).get(name) or {}
    if config.get("loss_weight") == 0:
        return ZeroReason("its loss_weight is 0 in the config", True)
    if held:
        return ZeroReason("kd_det.LossWeightHook holds its weight at 0 there", True)
    sides = [each.get("from_student") for each in inputs.values() if isinstance(each, Mapping)]
    for side, value in (("student", True), ("teacher", False)):
        if len(sides) > 1 and all(each is value for each in sides):
            text = f"all that it compares is recorded of the {side} (from_student = {value})"
            return ZeroReason(text, False)
    if model.get("architecture") and model.get("architecture") == model.get("teacher"):
        text = "teacher and student have the same config, and it seems the same weights"
    elif "t_emb" in inputs:
        text = (
            "no class of the batches has a class center, or no RoI was sampled (the log's table of "
            "class centers has the counts)"
        )
    elif "labels" in inputs:
        text = "no sample has the label of an object: the batches have none, or none matched"
    else:
        text = (
            "what it compares is empty (no RoI or positive was sampled) or the same on both sides; "
            "look at the sources of its recorders"
        )
    return ZeroReason(text, False)
