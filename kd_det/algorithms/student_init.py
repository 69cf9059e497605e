"""A student that starts from modules of its teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kd_det.algorithms import wiring
from kd_det.columns import aligned


@dataclass(frozen=True)
class Row:
    """A parameter or buffer under one of the modules, with its shape on each side."""

    name: str
    student: tuple[int, ...] | None
    teacher: tuple[int, ...] | None

    @property
    def agrees(self) -> bool:
        return self.student == self.teacher


def plan(student: nn.Module, teacher: nn.Module, modules: Sequence[str]) -> list[Row]:
    """List all parameters and buffers under ``modules``, of either side, each once.

    Modules are dotted paths, as ``['neck', 'roi_head.bbox_head']``. A shape is None where a side
    has no such tensor.

    Raises:
        kd_det.algorithms.WiringError: If a name matches no module of a side, or if no tensor
            under it has the same shape on both sides.
    """
    if isinstance(modules, str):
        raise wiring.WiringError(
            f"init_student_from_teacher: expected a list of module names, found {modules!r}"
        )
    rows: dict[str, Row] = {}
    for module in modules:
        for who, model in (("student", student), ("teacher", teacher)):
            wiring.require_module(model, module, who, "init_student_from_teacher names")
        own, other = (_shapes(model, module) for model in (student, teacher))
        found = [Row(name, own.get(name), other.get(name)) for name in own | other]
        if not any(row.agrees for row in found):
            raise wiring.WiringError(
                f"init_student_from_teacher names '{module}', but none of its tensors has the same "
                f"shape in student and teacher:\n{format_table(found)}"
            )
        rows.update((row.name, row) for row in found)
    return list(rows.values())


def covered_share(rows: Sequence[Row]) -> float:
    """Return the share of the student's values, from 0 to 1, that are copied from the teacher."""
    own = [(math.prod(row.student), row.agrees) for row in rows if row.student is not None]
    return sum(size for size, agrees in own if agrees) / sum(size for size, _ in own)


@torch.no_grad()
def copy(student: nn.Module, sources: Mapping[str, Tensor], rows: Sequence[Row]) -> None:
    """Copy the values of all tensors whose shapes agree; ``sources`` are the teacher's."""
    targets = student.state_dict()
    for row in rows:
        if row.agrees:
            targets[row.name].copy_(sources[row.name])


def format_table(rows: Sequence[Row]) -> str:
    """Write one line for each tensor: name, shapes of both sides, copied or not."""
    cells = [("tensor", "student", "teacher", "")]
    for row in rows:
        verdict = "copied" if row.agrees else "not copied"
        cells.append((row.name, _shape_text(row.student), _shape_text(row.teacher), verdict))
    return "\n".join(f"  {line}" for line in aligned(cells))


def _shapes(model: nn.Module, module: str) -> dict[str, tuple[int, ...]]:
    tensors: dict[str, Tensor] = model.get_submodule(module).state_dict(prefix=f"{module}.")
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _shape_text(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(list(shape))
