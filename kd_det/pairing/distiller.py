"""Fits a method's recorders, connectors and losses to two detectors."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from kd_det.algorithms import WiringError, heads, inherit
from kd_det.config_files import type_name
from kd_det.pairing.detectors import Detector, Level, PairingError

# What a method's recorders are called (configs/_base_/frcnn_distiller.py).
PYRAMID = "fpn"
OF_ROIS = ("embedding", "logits", "targets")
# Channels inside ReviewKD's fusion, as published, unless the pyramid has fewer.
FUSION_CHANNELS = 256
Mapping = dict[str, dict[str, Any]]


class Fitting:
    """The ``model`` of a method's config, fitted to a pair.

    Args:
        model: Config of the algorithm; changed in place.
        student: The student.
        teacher: The teacher.

    Raises:
        PairingError: If the method compares pyramids, and these have no stride in common.
    """

    def __init__(self, model: dict[str, Any], student: Detector, teacher: Detector) -> None:
        self.model = model
        self.distiller: dict[str, Any] = model["distiller"]
        self.student = student
        self.teacher = teacher
        self.decisions: list[str] = []
        self._fit_pyramids()
        self._fit_embeddings()
        self._fit_stages()
        self._fit_inheritance()
        self._drop_unused_connectors()

    @property
    def _mappings(self) -> dict[str, Mapping]:
        return self.distiller["loss_forward_mappings"]

    @property
    def _connectors(self) -> dict[str, Any]:
        return self.distiller.setdefault("connectors", {})

    def _records(self, names: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
        """Losses that are given one of these records, each with where it is said."""
        return [
            (loss, record)
            for loss, mapping in self._mappings.items()
            for record in mapping.values()
            if record["recorder"] in names
        ]

    # Pyramids

    def _fit_pyramids(self) -> None:
        pairs = common_levels(self.student.levels, self.teacher.levels)
        used = bool(self._records([PYRAMID]))
        if used and not pairs:
            raise PairingError(
                f"{self.student.title} has maps of strides {_strides(self.student.levels)} and "
                f"{self.teacher.title} of {_strides(self.teacher.levels)}, none in common; take a "
                "method that compares RoIs alone (kd, kd_nd, dkd, dist)"
            )
        for place, side in enumerate((self.student, self.teacher)):
            chosen = [pair[place] for pair in pairs] if used else side.levels
            self.distiller[f"{side.who}_recorders"][PYRAMID] = _recorder(side, chosen)
        if not used:
            return
        self._drop_levels_from(len(pairs))
        self._say_levels(pairs, self._compared(pairs))
        channels = [(ours.channels, theirs.channels) for ours, theirs in pairs]
        if not self._fit_fusion(channels) and any(ours != theirs for ours, theirs in channels):
            self._connect_channels(channels)

    def _drop_levels_from(self, number: int) -> None:
        for loss, record in self._records([PYRAMID]):
            if record.get("data_idx", 0) >= number and loss in self._mappings:
                del self._mappings[loss], self.distiller["distill_losses"][loss]

    def _compared(self, pairs: Sequence[tuple[Level, Level]]) -> list[tuple[Level, Level]]:
        """Of the common levels, those that a loss reads."""
        read = [record.get("data_idx") for _, record in self._records([PYRAMID])]
        return [pair for index, pair in enumerate(pairs) if None in read or index in read]

    def _say_levels(
        self, pairs: Sequence[tuple[Level, Level]], compared: Sequence[tuple[Level, Level]]
    ) -> None:
        text = f"levels of strides {_strides([ours for ours, _ in compared])} are compared"
        left_out = [ours for ours, theirs in pairs if (ours, theirs) not in compared]
        if left_out:
            text += f"; the method leaves those of {_strides(left_out)} out"
        for place, side in enumerate((self.student, self.teacher)):
            kept = {pair[place].index for pair in pairs}
            alone = [level for level in side.levels if level.index not in kept]
            if alone:
                text += f"; the {side.who}'s of {_strides(alone)} have no partner"
        self.decisions.append(text)

    def _fit_fusion(self, channels: Sequence[tuple[int, int]]) -> bool:
        """Fit ReviewKD's fusion, which also changes channels; whether there is one."""
        for fusion in self._connectors.values():
            if type_name(fusion) == "ReviewFusion":
                fusion["in_channels"] = [ours for ours, _ in channels]
                fusion["out_channels"] = [theirs for _, theirs in channels]
                fusion["mid_channels"] = min(FUSION_CHANNELS, max(theirs for _, theirs in channels))
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
                    in_channels=[ours for ours, _ in chosen],
                    out_channels=[theirs for _, theirs in chosen],
                )
                record["connector"] = name
        self.decisions.append(f"PyramidConnector {_arrows(channels)}")

    # Embeddings and logits

    def _fit_embeddings(self) -> None:
        theirs = self.teacher.embeddings[-1]
        for loss in self.distiller["distill_losses"].values():
            if "embed_dim" in loss:
                loss["embed_dim"] = theirs
            if "num_classes" in loss:
                loss["num_classes"] = heads.num_classes(self.teacher.model)
        ours = self.student.embeddings[-1]
        used = [r for _, r in self._records(["embedding"]) if r["from_student"]]
        if used and ours != theirs:
            self._connectors["embedding"] = dict(
                type="kd_det.EmbeddingConnector", in_features=ours, out_features=theirs
            )
            for record in used:
                record["connector"] = "embedding"
            self.decisions.append(f"EmbeddingConnector {ours} -> {theirs}")

    def _fit_stages(self) -> None:
        stages, theirs = len(self.student.box_heads), len(self.teacher.box_heads)
        same = stages == theirs > 1
        if theirs > 1:
            self.model["teacher_stage"] = "same" if same else "last"
            self.decisions.append(
                "each of the teacher's stages scores the RoIs of the student's (teacher_stage same)"
                if same
                else "the teacher's last stage scores the student's RoIs (teacher_stage last)"
            )
        for side, count in ((self.student, stages), (self.teacher, theirs if same else 1)):
            self._record_stages(side, count)
        if stages > 1:
            for loss in dict.fromkeys(loss for loss, _ in self._records(OF_ROIS)):
                self._repeat(loss, stages, same)

    def _record_stages(self, side: Detector, count: int) -> None:
        """Let what is recorded of a box head be that of the last ``count`` stages."""
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

    def _drop_unused_connectors(self) -> None:
        # Parameters that no loss reaches would stop DDP.
        used = {r.get("connector") for mapping in self._mappings.values() for r in mapping.values()}
        kept = {name: cfg for name, cfg in self._connectors.items() if name in used}
        del self.distiller["connectors"]
        if kept:
            self.distiller["connectors"] = kept

    # The student's start

    def _fit_inheritance(self) -> None:
        wanted = self.model.get("init_student_from_teacher")
        if not wanted:
            return
        possible = []
        for module in wanted:
            try:
                rows = inherit.plan(self.student.model, self.teacher.model, [module])
            except WiringError:
                self.decisions.append(f"{module}: nothing of the teacher's fits the student")
                continue
            possible.append(module)
            number = sum(row.agrees for row in rows)
            self.decisions.append(
                f"{module}: the student starts from {number} of the teacher's tensors"
            )
        self.model["init_student_from_teacher"] = possible


def common_levels(ours: Sequence[Level], theirs: Sequence[Level]) -> list[tuple[Level, Level]]:
    """Levels of the same stride, fine to deep."""
    by_stride = {level.stride: level for level in reversed(theirs)}
    pairs = {
        level.stride: (level, by_stride[level.stride])
        for level in reversed(ours)
        if level.stride in by_stride
    }
    return [pairs[stride] for stride in sorted(pairs)]


def _recorder(side: Detector, levels: Sequence[Level]) -> dict[str, Any]:
    """What records these levels; the pyramid's module alone, if it is all of them."""
    whole = dict(type="ModuleOutputs", source=side.pyramid)
    if [level.index for level in levels] == list(range(len(side.levels))):
        return whole
    return dict(type="kd_det.Pyramid", levels=[dict(whole, data_idx=i.index) for i in levels])


def _strides(levels: Sequence[Level]) -> str:
    return ", ".join(str(level.stride) for level in levels)


def _arrows(channels: Sequence[tuple[int, int]]) -> str:
    return ", ".join(dict.fromkeys(f"{ours} -> {theirs}" for ours, theirs in channels))
