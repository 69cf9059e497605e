"""Fit a method's recorders, connectors and losses to two detectors."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from kd_det.pairing.dense_fitting import fit_heads, reads_heads
from kd_det.pairing.detectors import Detector, Level
from kd_det.pairing.memory_parts import fit_memory
from kd_det.pairing.query_parts import fit_queries, reads_queries, used_connectors
from kd_det.pairing.student_start import fit_start
from kd_det.registry import type_name

# Names of a method's recorders (configs/_base_/frcnn_distiller.py).
PYRAMID = "fpn"
OF_ROIS = ("embedding", "logits", "targets")
# Channels inside ReviewKD's fusion, as published, unless the pyramid has fewer.
FUSION_CHANNELS = 256
Mapping = dict[str, dict[str, Any]]


def fit_distiller(model: dict[str, Any], student: Detector, teacher: Detector) -> list[str]:
    """Fit the ``model`` of a method's config to a pair, in place; returns what was decided.

    The pair meets the method's needs (:func:`kd_det.pairing.offers.choose_form`).
    """
    fitting = _Fitting(model, student, teacher)
    fitting.fit_pyramids()
    fitting.decisions += fit_memory(fitting.distiller, student, teacher)
    if reads_heads(fitting.distiller):
        fitting.decisions += fit_heads(fitting.distiller, student, teacher)
    elif reads_queries(fitting.distiller):
        fitting.decisions += fit_queries(fitting.distiller, student, teacher)
    elif student.scores_rois and teacher.scores_rois:
        fitting.fit_embeddings()
        fitting.fit_stages()
    else:
        fitting.drop_rois()
    fitting.drop_unused_connectors()
    return fitting.decisions + fit_start(model, student, teacher)


class _Fitting:
    """A method's model on its way to fit a pair; each ``fit_...`` changes one part of it."""

    def __init__(self, model: dict[str, Any], student: Detector, teacher: Detector) -> None:
        self.model = model
        self.distiller: dict[str, Any] = model["distiller"]
        self.student = student
        self.teacher = teacher
        self.decisions: list[str] = []

    @property
    def _mappings(self) -> dict[str, Mapping]:
        return self.distiller["loss_forward_mappings"]

    @property
    def _connectors(self) -> dict[str, Any]:
        return self.distiller.setdefault("connectors", {})

    def _records(self, names: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
        """Losses that read one of these records, each with its entry of the mapping."""
        return [
            (loss, record)
            for loss, mapping in self._mappings.items()
            for record in mapping.values()
            if record["recorder"] in names
        ]

    # Pyramids

    def fit_pyramids(self) -> None:
        pairs = common_levels(self.student.levels, self.teacher.levels)
        used = bool(self._records([PYRAMID]))
        for place, side in enumerate((self.student, self.teacher)):
            chosen = [pair[place] for pair in pairs] if used else side.levels
            self.distiller[f"{side.who}_recorders"][PYRAMID] = _recorder(side, chosen)
        if not used:
            return
        self._drop_levels_from(len(pairs))
        self._say_levels(pairs, self._compared(pairs))
        channels = [(student.channels, teacher.channels) for student, teacher in pairs]
        if not self._fit_fusion(channels) and any(s != t for s, t in channels):
            self._connect_channels(channels)

    def _drop_levels_from(self, number: int) -> None:
        for loss, record in self._records([PYRAMID]):
            if record.get("data_idx", 0) >= number and loss in self._mappings:
                del self._mappings[loss], self.distiller["distill_losses"][loss]

    def _compared(self, pairs: Sequence[tuple[Level, Level]]) -> list[tuple[Level, Level]]:
        """The common levels that a loss reads."""
        read = [record.get("data_idx") for _, record in self._records([PYRAMID])]
        return [pair for index, pair in enumerate(pairs) if None in read or index in read]

    def _say_levels(
        self, pairs: Sequence[tuple[Level, Level]], compared: Sequence[tuple[Level, Level]]
    ) -> None:
        text = f"levels of strides {strides([student for student, _ in compared])} are compared"
        left_out = [pair[0] for pair in pairs if pair not in compared]
        if left_out:
            text += f"; the method leaves those of {strides(left_out)} out"
        for place, side in enumerate((self.student, self.teacher)):
            kept = {pair[place].index for pair in pairs}
            alone = [level for level in side.levels if level.index not in kept]
            if alone:
                text += f"; the {side.who}'s of {strides(alone)} have no partner"
        self.decisions.append(text)

    def _fit_fusion(self, channels: Sequence[tuple[int, int]]) -> bool:
        """Fit ReviewKD's fusion, which also changes channels; whether there is one."""
        for fusion in self._connectors.values():
            if type_name(fusion) == "ReviewFusion":
                fusion["in_channels"], fusion["out_channels"] = map(list, zip(*channels))
                fusion["mid_channels"] = min(FUSION_CHANNELS, max(fusion["out_channels"]))
                self.decisions.append(f"ReviewFusion {_arrows(channels)}")
                return True
        return False

    def _connect_channels(self, channels: Sequence[tuple[int, int]]) -> None:
        for _, record in self._records([PYRAMID]):
            if record["from_student"]:
                level = record.get("data_idx")
                chosen = channels if level is None else [channels[level]]
                name = "channels" if level is None else f"channels{level}"
                self._connectors[name] = dict(
                    type="kd_det.PyramidConnector",
                    in_channels=[student for student, _ in chosen],
                    out_channels=[teacher for _, teacher in chosen],
                )
                record["connector"] = name
        self.decisions.append(f"PyramidConnector {_arrows(channels)}")

    # Embeddings and logits

    def drop_rois(self) -> None:
        """Record nothing of RoIs, where a side has none."""
        for side in ("student", "teacher"):
            for name in OF_ROIS:
                self.distiller[f"{side}_recorders"].pop(name, None)

    def fit_embeddings(self) -> None:
        student, teacher = (side.embeddings[-1] for side in (self.student, self.teacher))
        for loss in self.distiller["distill_losses"].values():
            if "embed_dim" in loss:
                loss["embed_dim"] = teacher
            if "num_classes" in loss:
                loss["num_classes"] = self.teacher.num_classes
        used = [r for _, r in self._records(["embedding"]) if r["from_student"]]
        if used and student != teacher:
            self._connectors["embedding"] = dict(
                type="kd_det.EmbeddingConnector", in_features=student, out_features=teacher
            )
            for record in used:
                record["connector"] = "embedding"
            self.decisions.append(f"EmbeddingConnector {student} -> {teacher}")

    def fit_stages(self) -> None:
        stages, teachers = len(self.student.box_heads), len(self.teacher.box_heads)
        same = stages == teachers > 1
        if teachers > 1:
            self.model["teacher_stage"] = "same" if same else "last"
            self.decisions.append(
                "each of the teacher's stages scores the RoIs of the student's (teacher_stage same)"
                if same
                else "the teacher's last stage scores the student's RoIs (teacher_stage last)"
            )
        for side, count in ((self.student, stages), (self.teacher, teachers if same else 1)):
            self._record_stages(side, count)
        if stages > 1:
            for loss in dict.fromkeys(loss for loss, _ in self._records(OF_ROIS)):
                self._repeat(loss, stages, same)

    def _record_stages(self, side: Detector, count: int) -> None:
        """Record the last ``count`` stages of a cascade."""
        recorders = self.distiller[f"{side.who}_recorders"]
        for name in OF_ROIS:
            for stage, head in enumerate(side.box_heads[-count:] if name in recorders else []):
                module = recorders[name]["source"].rpartition(".")[2]
                recorder = dict(recorders[name], source=f"{head}.{module}")
                recorders[f"{name}{stage}" if count > 1 else name] = recorder
            if count > 1:
                recorders.pop(name, None)

    def _repeat(self, name: str, stages: int, same: bool) -> None:
        """Put one loss for each stage of a cascade in place of a loss on RoIs."""
        losses = self.distiller["distill_losses"]
        loss, mapping = losses.pop(name), self._mappings.pop(name)
        # As mmdet weights the losses of the stages.
        weights = self.student.model_cfg["roi_head"]["stage_loss_weights"]
        for stage in range(stages):
            weight = loss.get("loss_weight", 1.0) * weights[stage]
            losses[f"{name}{stage}"] = dict(loss, loss_weight=weight)
            own = self._mappings[f"{name}{stage}"] = copy.deepcopy(mapping)
            for record in own.values():
                self._point_to(record, stage, same)
        self.decisions.append(f"{name} for each of the student's {stages} stages")

    def _point_to(self, record: dict[str, Any], stage: int, same: bool) -> None:
        if record["from_student"] or same:
            record["recorder"] += str(stage)
        else:
            record["record_idx"] = stage
        connector = record.get("connector")
        if connector is not None:
            record["connector"] = f"{connector}{stage}"
            self._connectors[record["connector"]] = dict(self._connectors[connector])

    def drop_unused_connectors(self) -> None:
        # Parameters that no loss reaches would stop DDP.
        used = {r.get("connector") for mapping in self._mappings.values() for r in mapping.values()}
        used |= used_connectors(self.distiller)
        kept = {name: cfg for name, cfg in self._connectors.items() if name in used}
        del self.distiller["connectors"]
        if kept:
            self.distiller["connectors"] = kept


def common_levels(student: Sequence[Level], teacher: Sequence[Level]) -> list[tuple[Level, Level]]:
    """Pairs of levels of the same stride, fine to deep."""
    by_stride = {level.stride: level for level in reversed(teacher)}
    pairs = {
        level.stride: (level, by_stride[level.stride])
        for level in reversed(student)
        if level.stride in by_stride
    }
    return [pairs[stride] for stride in sorted(pairs)]


def _recorder(side: Detector, levels: Sequence[Level]) -> dict[str, Any]:
    """The recorder of these levels; of the pyramid's module alone, if they are all of them."""
    whole = dict(type="ModuleOutputs", source=side.pyramid)
    if [level.index for level in levels] == list(range(len(side.levels))):
        return whole
    return dict(type="kd_det.Pyramid", levels=[dict(whole, data_idx=i.index) for i in levels])


def strides(levels: Sequence[Level]) -> str:
    """Strides of levels, for messages."""
    return ", ".join(str(level.stride) for level in levels)


def _arrows(channels: Sequence[tuple[int, int]]) -> str:
    return ", ".join(dict.fromkeys(f"{student} -> {teacher}" for student, teacher in channels))
