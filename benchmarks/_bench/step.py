"""A distillation step against the sum of what it cannot do without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from _bench.pairs import SHAPES, Pair, build_pair, recipe
from _bench.report import Against, Row, time_rows
from _bench.timing import Budget, interleave, peak_memory
from kd_det.algorithms import roi
from kd_det.recorders import recording

PARTS = ("student alone", "teacher", "connectors", "losses")
MiB = 2**20


def measure(
    budget: Budget,
    shape: str,
    dtype: torch.dtype,
    options: dict[str, Any],
    methods: Sequence[str],
) -> list[Row]:
    """Rows of this suite; ``options`` go into the model's config."""
    rows = []
    for method in methods:
        cfg = recipe(SHAPES[shape], method)
        cfg.model.update(options)
        pair = build_pair(cfg, SHAPES[shape], budget.device, dtype)
        case = f"{shape} {method}"
        work = parts(pair)
        against = {
            "whole": Against(PARTS, "sum of the parts", 1.05),
            "student, recorded": Against(["student alone"]),
        }
        rows += time_rows("step", case, interleave(work, budget), against)
        rows += _memory(case, work, budget)
    return rows


def _memory(case: str, work: dict[str, Callable[[], None]], budget: Budget) -> list[Row]:
    names = ("student alone", "teacher", "whole")
    peak = {name: peak_memory(work[name], budget.device) / MiB for name in names}
    floor = peak["student alone"] + peak["teacher"]
    rows = [Row("step", case, f"peak memory, {name}", peak[name], "MiB") for name in names[:2]]
    text = "student alone + teacher"
    whole = peak["whole"]
    return [*rows, Row("step", case, "peak memory, whole", whole, "MiB", None, text, whole / floor)]


def parts(pair: Pair) -> dict[str, Callable[[], None]]:
    """The whole step, and each of its parts on what the others gave it."""
    model = pair.model
    connect, compare = _connectors_and_losses(pair)

    def recorded() -> None:
        with pair.step_of(pair.student_optimizer):
            with pair.autocast(), recording(model.recorders("student")):
                losses = model.student(pair.inputs, pair.samples, mode="loss")
            pair.total(losses).backward()
        model.drop_records()

    return {
        "student alone": pair.student_step,
        "student, recorded": recorded,
        "teacher": teacher_forward(pair),
        "connectors": connect,
        "losses": compare,
        "whole": pair.step,
    }


def teacher_forward(pair: Pair) -> Callable[[], None]:
    """The teacher's pyramid and, where a loss reads it, its box head on the student's RoIs."""
    model = pair.model
    if not hasattr(model.teacher, "roi_head"):
        return _pyramid(pair)
    with pair.autocast(), torch.no_grad():
        model.record(pair.inputs, pair.samples)
    reads_rois = getattr(model.probe, "scores", False)
    rois = [found.clone() for found in model.probe.rois] if reads_rois else []
    model.drop_records()

    @torch.no_grad()
    def forward() -> None:
        with pair.autocast(), model.fixed_teacher.forward_context():
            inputs = model.speed.layout(model.teacher_input(pair.inputs, pair.samples))
            branch = roi.BoxBranch(model.teacher, inputs, model.teacher_stage)
            for index, boxes in enumerate(rois):
                branch.score(boxes, index)

    return forward


def _pyramid(pair: Pair) -> Callable[[], None]:
    model = pair.model

    @torch.no_grad()
    def forward() -> None:
        with pair.autocast(), model.fixed_teacher.forward_context():
            inputs = model.teacher_input(pair.inputs, pair.samples)
            model.teacher.extract_feat(model.speed.layout(inputs))

    return forward


def _connectors_and_losses(pair: Pair) -> tuple[Callable[[], None], Callable[[], None]]:
    """Forward and backward of each kind on leaves, which hold what a step recorded."""
    distiller = pair.model.distiller
    torch.manual_seed(0)
    with pair.autocast():
        pair.model.record(pair.inputs, pair.samples)
    connected: list[tuple[Any, Any]] = []  # connector, input
    calls: list[tuple[Any, dict[str, Any]]] = []  # loss, arguments
    for name, arguments in distiller.loss_forward_mappings.items():
        values = {}
        for argument, record in arguments.items():
            raw = distiller.get_record(**{**record, "connector": None, "connector_idx": None})
            if record.get("connector"):
                connected.append((distiller.connectors[record["connector"]], _leaves(raw, True)))
            with pair.autocast(), torch.no_grad():
                value = distiller.get_record(**record)
            values[argument] = _leaves(value, record["from_student"])
        calls.append((distiller.distill_losses[name], values))
    pair.model.drop_records()

    def connect() -> None:
        for connector, raw in connected:
            _clear(raw)
            connector.zero_grad()
            with pair.autocast():
                outputs = _flat(connector(raw))
            torch.autograd.backward(outputs, [torch.ones_like(x) for x in outputs])

    def compare() -> None:
        for _, values in calls:
            _clear(list(values.values()))
        with pair.autocast():
            losses = [loss(**values) for loss, values in calls]
        torch.stack(losses).sum().backward()

    return connect, compare


def _leaves(value: Any, with_gradient: bool) -> Any:
    """Detached copies of the tensors in ``value``."""
    if isinstance(value, (list, tuple)):
        return [_leaves(x, with_gradient) for x in value]
    value = value.detach().clone()
    return value.requires_grad_(with_gradient and value.is_floating_point())


def _flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [x for part in value for x in _flat(part)]


def _clear(value: Any) -> None:
    for leaf in _flat(value):
        leaf.grad = None
