"""The teacher's embeddings of one batch, for losses that compare with class centers.

For any algorithm with a teacher and MMRazor's distiller, :class:`kd_det.TeacherDistill` or one of
MMRazor's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from mmdet.models.detectors import DetectionTransformer
from mmdet.models.detectors.base import BaseDetector
from mmrazor.models.task_modules.recorder.base_recorder import BaseRecorder
from torch import Tensor

from kd_det.algorithms import dense, heads, query, roi
from kd_det.algorithms.probes import Probe
from kd_det.errors import InvalidInputError, UnsupportedTypeError
from kd_det.losses.positives import labels_of, rows_at
from kd_det.recorders import flat, recording

# The place of the classes in a record of kd_det.SharedQueries.
LABELS = query.Outputs._fields.index("labels")


class _Record(NamedTuple):
    """Where the embedding of a loss is recorded."""

    source: str
    recorder: BaseRecorder
    record_idx: int
    data_idx: int | None

    def __str__(self) -> str:
        return f"{type(self.recorder).__name__} {self.recorder.source}[{self.data_idx}]"


def embedding_sources(model: Any) -> dict[str, str]:
    """Name the module whose records are ``t_emb``, for each loss that has ``set_centers``.

    Raises:
        ValueError: If ``t_emb`` is no record of the teacher without a connector, or if losses
            read different records of one source.
    """
    return {name: record.source for name, record in _records(model).items()}


def describe_embeddings(model: Any, rois: str) -> dict[str, str]:
    """Describe the embedding of each source: recorder, RoIs, and stages of a cascade.

    Raises:
        ValueError: As :func:`embedding_sources`.
        TypeError: If the teacher is neither a classifier nor a detector with an RoI or dense head.
    """
    stage = _teacher_stage(model)
    more = f", RoIs {rois}" if hasattr(model.teacher, "roi_head") else ""
    more += ", the teacher's positives" if dense.is_dense(model.teacher) else ""
    more += ", the teacher's matched queries" if _has_queries(model.teacher) else ""
    more += f", teacher_stage {stage}" if stage else ""
    return {record.source: f"{record}{more}" for record in _records(model).values()}


def rules(teacher: Any, rois: str) -> list[Any]:
    """All that decides which samples of a teacher are embedded, and how they are labelled."""
    if hasattr(teacher, "roi_head"):
        # How it chooses and scores RoIs of its own.
        names = ("train_cfg", "test_cfg")
        return [getattr(teacher, name, None) for name in names] if rois == "sampled" else []
    if _has_queries(teacher):
        return query.rules(teacher)
    return dense.rules(teacher) if dense.is_dense(teacher) else []


@torch.no_grad()
def teacher_embeddings(
    model: Any, batch: Mapping[str, Any], rois: str = "sampled"
) -> list[tuple[str, Tensor, Tensor]]:
    """Compute the teacher's embeddings that losses with class centers compare, of one batch.

    Args:
        model: An algorithm with a teacher and a distiller; ``teacher_input``, ``teacher_stage``
            and ``probe`` are used where it has them.
        batch: What a dataloader yields.
        rois: Of a detector with an RoI head: ``'sampled'``, its own proposals as its assigner and
            sampler choose them in training, or ``'gt'``, the annotated boxes. A dense head has its
            positives, as its assigner chooses them.

    Returns:
        For each source, the module that is recorded, and each set of RoIs: the source, embeddings
        ``[n, D]`` and labels ``[n]``; background has the label behind the last.

    Raises:
        ValueError: As :func:`embedding_sources`, or if no loss uses class centers.
        TypeError: As :func:`describe_embeddings`.
    """
    records = {record.source: record for record in _records(model).values()}
    if not records:
        raise InvalidInputError(
            "no distillation loss of this model uses class centers, it has "
            f"{sorted(model.distiller.distill_losses)}"
        )
    # Not as in training: mixed images would have no class.
    data = model.data_preprocessor(batch, training=False)
    inputs, samples = data["inputs"], data["data_samples"]
    if hasattr(model, "teacher_input"):
        inputs = model.speed.layout(model.teacher_input(inputs, samples))
    recorders = [record.recorder for record in records.values()]
    teacher, was_training = model.teacher, model.teacher.training
    teacher.eval()
    found = []
    try:
        with teacher_context(model), recording(recorders):
            for labels in _passes(model, inputs, samples, recorders, rois):
                for source, (_, recorder, record_idx, data_idx) in records.items():
                    # Another stage of a cascade has a pass of its own.
                    if recorder.data_buffer:
                        # Of RoIs, which are those of one stage, there is one record.
                        call = 0 if hasattr(teacher, "roi_head") else record_idx
                        record = recorder.get_record_data(call, data_idx)
                        found.append((source, *_rows(source, record, labels)))
                    recorder.reset_data_buffer()
    finally:
        teacher.train(was_training)
        for recorder in recorders:
            recorder.reset_data_buffer()
    return found


def teacher_context(model: Any) -> AbstractContextManager[None]:
    """The context in which an algorithm's teacher runs: no gradient, and its precision."""
    if hasattr(model, "fixed_teacher"):
        return model.fixed_teacher.forward_context()
    return torch.no_grad()


def _records(model: Any) -> dict[str, _Record]:
    """The record that is ``t_emb``, for each loss that has ``set_centers``."""
    distiller = model.distiller
    found: dict[str, _Record] = {}
    by_source: dict[str, str] = {}
    for name, loss in distiller.distill_losses.items():
        if not hasattr(loss, "set_centers"):
            continue
        given = distiller.loss_forward_mappings[name].get("t_emb") or {}
        if given.get("from_student", True) or given.get("connector"):
            raise InvalidInputError(
                f"class centers are means of 't_emb' of distillation loss '{name}': expected a "
                f"record of the teacher without a connector, found {given or None}"
            )
        recorder = distiller.teacher_recorders.recorders[given["recorder"]]
        # Of a pyramid's levels, each module once.
        source = ", ".join(dict.fromkeys(level.source for level in flat([recorder])))
        record = _Record(source, recorder, given.get("record_idx", 0), given.get("data_idx"))
        other = by_source.setdefault(record.source, str(record))
        if other != str(record):
            raise InvalidInputError(
                "class centers are means of one embedding of each source, but distillation loss "
                f"'{name}' reads {record}, and another loss {other}"
            )
        found[name] = record
    return found


def _passes(
    model: Any, inputs: Tensor, samples: list, recorders: Iterable[BaseRecorder], rois: str
) -> Iterator[Any]:
    """Run the teacher; yields the labels of each set of RoIs, or those of the images.

    Of a dense head, its positives; of queries, the classes of those that are matched to objects.
    """
    teacher, stage = model.teacher, _teacher_stage(model)
    if hasattr(teacher, "roi_head"):
        score = roi.score_ground_truth if rois == "gt" else roi.score_proposals
        with roi.samplers_unrecorded(teacher, recorders):
            yield from score(teacher, inputs, samples, stage)
        return
    if dense.is_dense(teacher):
        yield dense.teacher_positives(teacher, inputs, samples)
        return
    if _has_queries(teacher):
        recorder = next(iter(recorders))
        if not getattr(recorder, "match", False):
            raise InvalidInputError(
                "class centers of a detector with queries are means over those that are matched to "
                "objects: expected t_emb of a recorder kd_det.SharedQueries with match=True, found "
                f"one of {recorder.source}"
            )
        model.probe.run(teacher, inputs, samples)
        yield recorder.get_record_data(data_idx=LABELS)
        return
    labels = torch.cat([sample.gt_label.reshape(-1) for sample in samples])
    if len(labels) != len(inputs):
        raise InvalidInputError(
            f"class centers need one label for each image, found {len(labels)} labels of "
            f"{len(inputs)} images"
        )
    getattr(model, "probe", Probe()).run(teacher, inputs, samples)
    yield labels


def _teacher_stage(model: Any) -> str | None:
    """Which stages of a cascade score RoIs; raises TypeError for an unsupported teacher."""
    teacher = model.teacher
    if hasattr(teacher, "roi_head"):
        heads.require_two_stage(teacher, "teacher")
        if hasattr(model, "teacher_stage"):
            return model.teacher_stage
        # An algorithm of MMRazor's, whose teacher scores RoIs of its own.
        return heads.choose_stage(None, teacher, teacher)
    if isinstance(teacher, BaseDetector) and not (dense.is_dense(teacher) or _has_queries(teacher)):
        raise UnsupportedTypeError(
            "class centers are means over RoIs, positives, queries or images: expected a teacher "
            "with an RoI head, a dense head or a decoder, or a classifier, found "
            f"{type(teacher).__name__}"
        )
    return None


def _has_queries(teacher: Any) -> bool:
    return isinstance(teacher, DetectionTransformer)


def _rows(source: str, record: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Embeddings ``[n, D]`` and labels ``[n]``; of a dense head's maps, at its positives."""
    if isinstance(labels, Tensor):
        return record, labels
    if isinstance(record, Tensor):
        raise InvalidInputError(
            f"class centers of a dense head need its maps of all levels, found one record of "
            f"{source}; record it as kd_det.Pyramid"
        )
    return rows_at(record, labels), labels_of(labels)
