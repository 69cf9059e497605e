"""The probe of query detectors: both decoders answer the same queries."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from mmengine.logging import MessageHub
from mmrazor.models.distillers import ConfigurableDistiller
from torch import Tensor

from kd_det.algorithms import query
from kd_det.algorithms.probes.forward import DenseProbe
from kd_det.algorithms.query import Queries, SharedQueriesRecorder
from kd_det.algorithms.wiring import WiringError


class _Shared(NamedTuple):
    """Queries of both sides, and the class of the object that each found, if it is asked for."""

    queries: Queries
    labels: Tensor | None


class QueryProbe(DenseProbe):
    """The teacher as a whole; then the student's decoder on the queries that both share.

    Raises:
        kd_det.algorithms.WiringError: If a side has shared queries that the other lacks, or a
            connector is missing.
    """

    name = "query"

    def __init__(self, distiller: ConfigurableDistiller) -> None:
        self.distiller = distiller
        self.pairs = _pairs(distiller)

    def run(self, teacher: Any, inputs: Tensor, data_samples: list | None) -> list[_Shared]:
        """Run the detector, and its decoder on queries that are drawn; returns all queries."""
        super().run(teacher, inputs, data_samples)
        shared = []
        for place, (_, recorder) in enumerate(self.pairs):
            call = recorder.call
            if call is None:  # where class centers are gathered, it does not record
                continue
            queries, labels = query.queries_of(teacher, call), None
            if recorder.random:
                queries = query.draw(queries, recorder.random, *_now(), place)
                found = query.decode(teacher, call, queries)
            else:
                found = query.predict(teacher, call)
            if recorder.match:
                labels = query.match(teacher, found, data_samples or [])
                found = found.at(labels, teacher.bbox_head.num_classes)
            recorder.data_buffer.append(found)
            shared.append(_Shared(queries, labels))
        return shared

    def run_student_again(self, student: Any, seen: list[_Shared]) -> None:
        """Run the student's decoder on the teacher's queries."""
        for (queries, labels), (recorder, _) in zip(seen, self.pairs):
            call = recorder.call
            assert call is not None
            if recorder.connector is not None:
                queries = self.distiller.connectors[recorder.connector](queries)
            found = query.decode(student, call, queries)
            if labels is not None:
                found = found.at(labels, student.bbox_head.num_classes)
            recorder.data_buffer.append(found)


def shares_queries(distiller: ConfigurableDistiller) -> bool:
    """Whether a distiller has recorders of shared queries."""
    return any(map(_recorders, (distiller.student_recorders, distiller.teacher_recorders)))


def _recorders(manager: Any) -> dict[str, SharedQueriesRecorder]:
    recorders = manager.recorders.items()
    return {name: x for name, x in recorders if isinstance(x, SharedQueriesRecorder)}


def _pairs(
    distiller: ConfigurableDistiller,
) -> list[tuple[SharedQueriesRecorder, SharedQueriesRecorder]]:
    own, other = map(_recorders, (distiller.student_recorders, distiller.teacher_recorders))
    described = [{name: (x.random, x.match) for name, x in side.items()} for side in (own, other)]
    if described[0] != described[1]:
        raise WiringError(
            "recorders kd_det.SharedQueries share queries by their names: expected the same names "
            f"with the same (random, match) on both sides, found {described[0]} of the student and "
            f"{described[1]} of the teacher"
        )
    for name, recorder in own.items():
        if recorder.connector is not None and recorder.connector not in distiller.connectors:
            raise WiringError(
                f"student recorder '{name}' names connector '{recorder.connector}', but there are "
                f"{sorted(distiller.connectors)}"
            )
    return [(own[name], other[name]) for name in own]


def _now() -> tuple[int, int]:
    """The run's seed and the iteration, by which a resumed training draws the same queries."""
    step = MessageHub.get_current_instance().get_info("iter", 0)
    return torch.initial_seed() % 2**63, int(step)
