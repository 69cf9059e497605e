"""The same pair, KD on logits and CWD on pyramids, under MMRazor's own algorithm and under ours."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from mmengine.config import Config

from _bench.pairs import SHAPES, build_pair, recipe
from _bench.report import Against, Row, time_rows
from _bench.timing import Budget, interleave, peak_memory

OURS, PEER = "kd_det.TeacherDistill", "mmrazor.SingleTeacherDistill"
MiB = 2**20


def measure(budget: Budget, shape: str, dtype: torch.dtype, options: dict[str, Any]) -> list[Row]:
    """Rows of this suite; ``options`` go into the config of our model."""
    pairs = {}
    for name in (OURS, PEER):
        cfg = configuration(recipe(SHAPES[shape], "kd"), name)
        if name == OURS:
            cfg.model.update(options)
        pairs[name] = build_pair(cfg, SHAPES[shape], budget.device, dtype)
    switch_inplace_on(pairs[PEER].model)
    work = {name: pair.step for name, pair in pairs.items()}
    against = {OURS: Against([PEER], "", 0.85)}
    rows = time_rows("peer", shape, interleave(work, budget), against)
    peaks = {
        name: peak_memory(pair.step, budget.device, partial(forget, pair.model)) / MiB
        for name, pair in pairs.items()
    }
    share = peaks[OURS] / peaks[PEER]
    return [
        *rows,
        Row("peer", shape, f"peak memory, {PEER}", peaks[PEER], "MiB"),
        Row("peer", shape, f"peak memory, {OURS}", peaks[OURS], "MiB", None, PEER, share, 1.0),
    ]


def configuration(cfg: Config, algorithm: str) -> Config:
    """The recipe of KD with MMRazor's CWD beside it, under ``algorithm``."""
    distiller = cfg.model.distiller
    distiller.distill_losses.loss_cwd = dict(
        type="mmrazor.ChannelWiseDivergence", tau=1.0, loss_weight=10.0
    )
    maps = {side: dict(from_student=side == "s", recorder="fpn", data_idx=0) for side in "st"}
    distiller.loss_forward_mappings.loss_cwd = dict(preds_S=maps["s"], preds_T=maps["t"])
    for side in ("student", "teacher"):
        distiller[f"{side}_recorders"].fpn = dict(type="ModuleOutputs", source="neck")
    distiller["_scope_"] = "mmrazor"  # where MMRazor's algorithm looks for recorders
    cfg.model.type = algorithm
    return cfg


def forget(model: Any) -> None:
    """Drop the records of a step; under MMRazor's algorithm they stay until the next one."""
    for side in (model.distiller.student_recorders, model.distiller.teacher_recorders):
        for recorder in side.recorders.values():
            recorder.reset_data_buffer()


def switch_inplace_on(model: Any) -> None:
    # MMRazor means to switch it off; without our patch, on current torch, it does not.
    for module in [*model.student.modules(), *model.teacher.modules()]:
        if getattr(module, "inplace", None) is False:
            module.inplace = True
