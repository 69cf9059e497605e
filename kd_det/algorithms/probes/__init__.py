"""Probes: how a teacher is run on the student's batch, and what that offers to recorders.

=========== =========================================== ===========================================
probe       runs                                        offers
=========== =========================================== ===========================================
features    ``extract_feat``                            backbone and neck
dense       a detector as ``mode='tensor'`` does; of a  all of a one-stage or query-based
            two-stage one, the RPN head                 detector; backbone, neck and ``rpn_head``
roi         the pyramid, then the box heads on the      backbone, neck, ``roi_head``; ``rpn_head``
            RoIs that the student sampled               where it is read
query       all of a query-based detector, and both     all of it; ``kd_det.SharedQueries``
            decoders on queries that they share
image       a classifier as ``mode='tensor'`` does      all of a classifier
=========== =========================================== ===========================================

None runs samplers or losses; an assigner runs where ``kd_det.SharedQueries`` is asked for matches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmdet.models.detectors import TwoStageDetector
from mmdet.models.detectors.base import BaseDetector
from mmrazor.models.distillers import ConfigurableDistiller
from mmrazor.models.task_modules import ModuleInputsRecorder, ModuleOutputsRecorder
from mmrazor.models.task_modules.recorder import ParameterRecorder
from torch import nn

from kd_det.algorithms import heads
from kd_det.algorithms.probes.forward import DenseProbe, FeatureProbe, Probe
from kd_det.algorithms.probes.query import QueryProbe, shares_queries
from kd_det.algorithms.probes.roi import RoIProbe
from kd_det.algorithms.teacher import FEATURES
from kd_det.algorithms.wiring import WiringError
from kd_det.errors import InvalidInputError
from kd_det.recorders import flat

__all__ = ["DenseProbe", "FeatureProbe", "Probe", "QueryProbe", "RoIProbe", "choose"]

PROBES = ("features", "dense", "roi", "query", "image")
# The part of a function or method, which may be called anywhere.
ANYWHERE = "anywhere"


def choose(
    name: str | None,
    student: nn.Module,
    teacher: nn.Module,
    distiller: ConfigurableDistiller,
    teacher_stage: str | None = None,
) -> Probe:
    """Choose the probe of this ``name``, or for None the cheapest that offers what losses read.

    Raises:
        ValueError: For an unknown name.
        TypeError: If ``roi`` is needed and a side is no two-stage detector with a supported head.
        kd_det.algorithms.WiringError: If the named probe does not offer what losses read.
    """
    if name is not None and name not in PROBES:
        raise InvalidInputError(f"probe: expected one of {PROBES} or None, found {name!r}")
    read = _parts_read(distiller, from_student=False)
    delivered = sorted(distiller.deliveries.deliveries)
    pair_has_rois = all(map(heads.scores_rois, (student, teacher)))
    if name is None and shares_queries(distiller):
        chosen = "query"
    elif name is None and pair_has_rois and "roi_head" in _parts_read(distiller, from_student=True):
        chosen = "roi"  # it handles steps without RoIs
    else:
        chosen = name or _cheapest({*read, *delivered}, teacher)
    if chosen == "roi" and delivered:
        raise InvalidInputError(
            "the probe 'roi' lets the teacher's box heads score the RoIs that the student sampled, "
            "after the student's forward pass, so that nothing of them can be delivered to it; "
            f"remove distill_deliveries {delivered}"
        )
    offered = _offered(chosen, teacher)
    if name is not None and offered is not None and not read - {ANYWHERE} <= offered:
        raise WiringError(
            f"the probe '{name}' runs no more of the teacher than {sorted(offered)}, but "
            f"distillation losses read its {sorted(read - offered)}; leave probe out, or name "
            f"another of {PROBES}"
        )
    if chosen == "roi":
        return RoIProbe(student, teacher, teacher_stage, read)
    if chosen == "query":
        return QueryProbe(distiller)
    return {"features": FeatureProbe, "dense": DenseProbe, "image": Probe}[chosen]()


def _cheapest(read: set[str], teacher: nn.Module) -> str:
    if read <= set(FEATURES) and hasattr(teacher, "extract_feat"):
        return "features"
    if not isinstance(teacher, BaseDetector):
        return "image"
    return "roi" if hasattr(teacher, "roi_head") and read & {"roi_head", ANYWHERE} else "dense"


def _offered(name: str, teacher: nn.Module) -> set[str] | None:
    """List the parts of the teacher that a probe runs; None for all."""
    if name == "features":
        return set(FEATURES)
    if not isinstance(teacher, TwoStageDetector):
        return None
    return {*FEATURES, "rpn_head"} | ({"roi_head"} if name == "roi" else set())


def _parts_read(distiller: ConfigurableDistiller, from_student: bool) -> set[str]:
    """List the parts of one side, such as ``neck``, of which losses read records."""
    manager = distiller.student_recorders if from_student else distiller.teacher_recorders
    mappings = distiller.loss_forward_mappings.values()
    names = {
        record["recorder"]
        for arguments in mappings
        for record in arguments.values()
        if record["from_student"] == from_student
    }
    return set(_parts(manager.recorders[name] for name in names))


def _parts(recorders: Any) -> Iterator[str]:
    for recorder in flat(recorders):
        if isinstance(recorder, (ModuleInputsRecorder, ModuleOutputsRecorder)):
            yield recorder.source.split(".")[0]
        elif not isinstance(recorder, ParameterRecorder):  # available without a forward pass
            yield ANYWHERE
