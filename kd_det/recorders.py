"""Recorders of intermediate results of a model, beside MMRazor's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from mmrazor.models.task_modules.recorder.base_recorder import BaseRecorder
from mmrazor.registry import TASK_UTILS as RAZOR_TASK_UTILS
from torch import nn

from kd_det.errors import InvalidInputError
from kd_det.registry import TASK_UTILS


@TASK_UTILS.register_module()
class PyramidRecorder(BaseRecorder):
    """Several records as one sequence, fine to deep: ``type='kd_det.Pyramid'`` in a config.

    Losses and connectors on pyramids take all levels at once. A neck like FPN gives them as its
    output; a classifier's stages and its pooled feature come out of several modules:

    .. code-block:: python

        dict(
            type="kd_det.Pyramid",
            levels=[
                "backbone.layer1",  # short for dict(type="ModuleOutputs", source="backbone.layer1")
                # The first input of a module's last call: here, a map before its last ReLU.
                dict(type="ModuleInputs", source="backbone.layer2.3.relu", record_idx=-1,
                     data_idx=0),
                dict(type="ModuleInputs", source="head.fc", data_idx=0),  # the pooled feature
            ],
        )

    Args:
        levels: For each level a module whose output it is, or the config of a recorder, any of
            MMRazor's, with ``record_idx`` and ``data_idx`` as in ``loss_forward_mappings``. A
            negative ``record_idx`` counts from the last call.

    Raises:
        ValueError: For no levels.
    """

    def __init__(self, levels: Sequence[str | Mapping[str, Any]]) -> None:
        if not levels:
            raise InvalidInputError("kd_det.Pyramid needs at least one level, got levels=[]")
        self._levels: list[BaseRecorder] = []
        self._indices: list[dict[str, Any]] = []
        for level in levels:
            if isinstance(level, str):
                level = dict(type="ModuleOutputs", source=level)
            cfg = {"_scope_": "mmrazor", **level}
            indices: dict[str, Any] = {
                key: cfg.pop(key) for key in ("record_idx", "data_idx") if key in cfg
            }
            # As in MMRazor's manager, whose configs leave the ending out.
            cfg["type"] += "Recorder"
            self._levels.append(RAZOR_TASK_UTILS.build(cfg))
            self._indices.append(indices)
        super().__init__(", ".join(map(_described, self._levels, self._indices)))

    @property
    def data_buffer(self) -> list:
        """One record, of all levels, once each has one."""
        complete = all(level.data_buffer for level in self._levels)
        return [self.get_record_data()] if complete else []

    def prepare_from_model(self, model: nn.Module | None = None) -> None:
        """Prepare the recorder of each level."""
        for level in self._levels:
            level.initialize(model)

    def get_record_data(self, record_idx: int = 0, data_idx: int | None = None) -> Any:
        """All levels, or one of them.

        Raises:
            ValueError: If a level has no such record; names it.
        """
        record = []
        for level, indices in zip(self._levels, self._indices):
            try:
                record.append(level.get_record_data(**indices))
            except (AssertionError, IndexError, TypeError) as error:
                raise InvalidInputError(
                    f"kd_det.Pyramid has {len(level.data_buffer)} records of {level.source}, "
                    f"expected {indices or 'one'}: {error}"
                ) from error
        return record if data_idx is None else record[data_idx]

    def reset_data_buffer(self) -> None:
        """Drop the records of all levels."""
        for level in self._levels:
            level.reset_data_buffer()

    def __enter__(self) -> None:
        for level in self._levels:
            level.__enter__()

    def __exit__(self, *exception: Any) -> None:
        for level in self._levels:
            level.__exit__(*exception)


def _described(level: BaseRecorder, indices: Mapping[str, Any]) -> str:
    kind = "input of " if "Inputs" in type(level).__name__ else ""
    call = f" (call {indices['record_idx']})" if "record_idx" in indices else ""
    item = f"[{indices['data_idx']}]" if "data_idx" in indices and not kind else ""
    return f"{kind}{level.source}{item}{call}"


def flat(recorders: Iterable[BaseRecorder]) -> Iterator[BaseRecorder]:
    """Replace recorders of pyramids by those of their levels."""
    for recorder in recorders:
        yield from recorder._levels if isinstance(recorder, PyramidRecorder) else [recorder]


@contextmanager
def recording(recorders: Iterable[BaseRecorder], go_on: bool = False) -> Iterator[None]:
    """Record; with ``go_on``, append to earlier records, which MMRazor's recorders drop."""
    with ExitStack() as stack:
        for recorder in flat(recorders):
            before = recorder.data_buffer
            stack.enter_context(recorder)
            # A recorder of a parameter keeps its list.
            if go_on and recorder.data_buffer is not before:
                # In place: a recorder of a function holds on to the list.
                recorder.data_buffer.extend(before)
        yield
