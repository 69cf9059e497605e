"""Norms, directions and agreement of student and teacher embeddings, as scalars."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmrazor.models.task_modules import ModuleInputsRecorder, ModuleOutputsRecorder
from torch import Tensor, nn

from kd_det.errors import InvalidInputError
from kd_det.hooks._distillation import require_alone, require_distillation
from kd_det.losses.class_means import as_rows
from kd_det.registry import HOOKS

ARGUMENTS = {"s_emb", "t_emb"}


@HOOKS.register_module()
class EmbeddingMonitorHook(Hook):
    """Log norms and directions of embeddings, and whether student and teacher agree.

    Every ``interval`` iterations it looks at what the distillation losses with the arguments
    ``s_emb`` and ``t_emb`` are given, and logs means over the RoIs (or images) of that step for
    every backend of the visualizer, those of ``loss_nd`` under ``distill_monitor/nd/``:

    - ``student_norm``, ``teacher_norm``: lengths of the embeddings;
    - ``student_cosine``, ``teacher_cosine``: to the class mean of each sample's label, where the
      loss has class means (a method ``mean_cosine(emb, labels)``); samples that take no part in
      the loss take none here;
    - ``agreement``: the share of samples to which both give the same class, where the logits of
      the layer whose inputs are the embeddings are recorded on both sides.

    Nothing is computed twice, and the training keeps its bits: the losses have a forward hook in
    those iterations alone. With several processes the samples of the first are logged.

    Args:
        interval: Iterations between two looks; one waits for the device.

    Raises:
        ValueError: For an ``interval`` below 1; when training begins, if no distillation loss
            is given embeddings.
    """

    priority = "NORMAL"  # before LoggerHook

    def __init__(self, interval: int = 50) -> None:
        if interval < 1:
            raise InvalidInputError(
                f"EmbeddingMonitorHook: expected interval >= 1, found {interval}"
            )
        self.interval = interval
        self._handles: list[Any] = []
        self._found: dict[str, dict[str, Tensor]] = {}

    def before_train(self, runner: Runner) -> None:
        """Find the losses that are given embeddings."""
        require_alone(runner, self)
        self._distiller = require_distillation(runner, "EmbeddingMonitorHook").distiller
        mappings = self._distiller.loss_forward_mappings
        self._names = [name for name in mappings if mappings[name].keys() >= ARGUMENTS]
        if not self._names:
            raise InvalidInputError(
                "EmbeddingMonitorHook looks at distillation losses with the arguments s_emb and "
                f"t_emb, such as kd_det.NDLoss; this model has {sorted(mappings)}; remove the hook"
            )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Put hooks on the losses in the iterations that are looked at."""
        self._remove()
        if self.every_n_train_iters(runner, self.interval):
            for name in self._names:
                loss = self._distiller.distill_losses[name]
                look = partial(self._look, name)
                self._handles.append(loss.register_forward_hook(look, with_kwargs=True))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Log what was found."""
        self._remove()
        for name, means in self._found.items():
            values = torch.stack(list(means.values())).tolist()
            place = f"train/distill_monitor/{_short(name)}"
            runner.message_hub.update_scalars({f"{place}/{k}": v for k, v in zip(means, values)})
        self._found = {}

    def _remove(self) -> None:
        while self._handles:
            self._handles.pop().remove()

    @torch.no_grad()
    def _look(self, name: str, loss: nn.Module, args: tuple, kwargs: Any, output: Any) -> None:
        if not isinstance(kwargs["s_emb"], Tensor):  # a dense head's maps
            names = ("s_emb", "t_emb", "labels")
            kwargs = {**kwargs, **dict(zip(names, as_rows(*(kwargs[n] for n in names))))}
        if len(kwargs["s_emb"]):
            self._found[name] = _means(loss, **kwargs) | self._agreement(name)

    def _agreement(self, name: str) -> dict[str, Tensor]:
        mapping = self._distiller.loss_forward_mappings[name]
        student = _logits(self._distiller.student_recorders, mapping["s_emb"])
        teacher = _logits(self._distiller.teacher_recorders, mapping["t_emb"])
        if student is None or teacher is None or student.shape != teacher.shape:
            return {}
        return {"agreement": (student.argmax(1) == teacher.argmax(1)).float().mean()}


def _short(name: str) -> str:
    # MMEngine smooths over many iterations what has "loss" in its name.
    return name.replace("loss", "").strip("_") or "embedding"


def _means(
    loss: Any, s_emb: Tensor, t_emb: Tensor, labels: Tensor | None = None, **_: Any
) -> dict[str, Tensor]:
    """Mean norms and, where the loss has class means, cosines of embeddings ``[N, D]``."""
    # Squares of half-precision numbers overflow.
    sides = {"student": s_emb.float(), "teacher": t_emb.float()}
    found = {f"{s}_norm": torch.linalg.vector_norm(x, dim=1).mean() for s, x in sides.items()}
    if hasattr(loss, "mean_cosine") and labels is not None:
        for side, emb in sides.items():
            found[f"{side}_cosine"] = loss.mean_cosine(emb, labels)
    return found


def _logits(recorders: Any, embedding: dict[str, Any]) -> Tensor | None:
    """Recorded outputs ``[N, C]`` of the module whose inputs are the embedding, or None."""
    asked = recorders.recorders[embedding["recorder"]]
    if not isinstance(asked, ModuleInputsRecorder):
        return None
    for recorder in recorders.recorders.values():
        # One of inputs is a subclass of one of outputs.
        if type(recorder) is ModuleOutputsRecorder and recorder.source == asked.source:
            found = recorder.get_record_data(embedding.get("record_idx", 0))
            return found if isinstance(found, Tensor) and found.dim() == 2 else None
    return None
