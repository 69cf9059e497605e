"""The teacher's embeddings of one batch, for losses that compare with class centers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from mmdet.models.detectors.base import BaseDetector
from mmrazor.models.distillers import ConfigurableDistiller
from mmrazor.models.task_modules.recorder.base_recorder import BaseRecorder
from torch import Tensor

from kd_det.algorithms import heads, roi
from kd_det.errors import InvalidInputError, UnsupportedTypeError
from kd_det.recorders import recording


class Record(NamedTuple):
    """Where the embedding of a loss is recorded."""

    source: str
    recorder: BaseRecorder
    record_idx: int
    data_idx: int | None


def records(distiller: ConfigurableDistiller) -> dict[str, Record]:
    """Where ``t_emb`` of each loss that has ``set_centers`` is recorded.

    Raises:
        ValueError: If that is no record of the teacher without a connector, or if records of one
            source differ.
    """
    found: dict[str, Record] = {}
    by_source: dict[str, tuple] = {}
    for name, loss in distiller.distill_losses.items():
        if not hasattr(loss, "set_centers"):
            continue
        record = distiller.loss_forward_mappings[name].get("t_emb") or {}
        if record.get("from_student", True) or record.get("connector"):
            raise InvalidInputError(
                f"class centers are means of 't_emb' of distillation loss '{name}': expected a "
                f"record of the teacher without a connector, found {record or None}"
            )
        recorder = distiller.teacher_recorders.recorders[record["recorder"]]
        found[name] = Record(
            recorder.source, recorder, record.get("record_idx", 0), record.get("data_idx")
        )
        key = (type(recorder), found[name].data_idx)
        if by_source.setdefault(recorder.source, key) != key:
            raise InvalidInputError(
                f"class centers are means of one embedding of each source, but distillation loss "
                f"'{name}' reads another one of {recorder.source} than a loss before it"
            )
    return found


@torch.no_grad()
def of_batch(model: Any, batch: Mapping[str, Any], rois: str) -> list[tuple[str, Tensor, Tensor]]:
    """See :meth:`kd_det.TeacherDistill.teacher_embeddings`."""
    by_source = {record.source: record for record in records(model.distiller).values()}
    if not by_source:
        raise InvalidInputError(
            "no distillation loss of this model uses class centers, it has "
            f"{sorted(model.distiller.distill_losses)}"
        )
    # Not as in training: mixed images would have no class.
    data = model.data_preprocessor(batch, training=False)
    samples = data["data_samples"]
    inputs = model.teacher_input(data["inputs"], samples)
    recorders = [record.recorder for record in by_source.values()]
    teacher, was_training = model.teacher, model.teacher.training
    teacher.eval()
    found = []
    try:
        with recording(recorders):
            for labels, is_roi in _passes(model, inputs, samples, recorders, rois):
                for source, (_, recorder, record_idx, data_idx) in by_source.items():
                    # A pass of one stage of a cascade is none of another's.
                    if recorder.data_buffer:
                        # Of RoIs, which are those of one stage, there is one record.
                        call = 0 if is_roi else record_idx
                        emb = recorder.get_record_data(call, data_idx)
                        found.append((source, emb, labels))
                    recorder.reset_data_buffer()
    finally:
        teacher.train(was_training)
        for recorder in recorders:
            recorder.reset_data_buffer()
    return found


def _passes(
    model: Any, inputs: Tensor, samples: list, recorders: Iterable[BaseRecorder], rois: str
) -> Iterator[tuple[Tensor, bool]]:
    """Run the teacher; yields labels, and whether they are of RoIs, after each pass of a head."""
    teacher = model.teacher
    if hasattr(teacher, "roi_head"):
        heads.require_two_stage(teacher, "teacher")
        score = roi.score_ground_truth if rois == "gt" else roi.score_proposals
        with roi.samplers_unrecorded(teacher, recorders):
            for labels in score(teacher, inputs, samples, model.teacher_stage):
                yield labels, True
    elif isinstance(teacher, BaseDetector):
        raise UnsupportedTypeError(
            "class centers are means over RoIs or images: expected a teacher with an RoI head or a "
            f"classifier, found {type(teacher).__name__}"
        )
    else:
        labels = torch.cat([sample.gt_label.reshape(-1) for sample in samples])
        if len(labels) != len(inputs):
            raise InvalidInputError(
                f"class centers need one label for each image, found {len(labels)} labels of "
                f"{len(inputs)} images"
            )
        model.probe.run(teacher, inputs, samples)
        yield labels, False
