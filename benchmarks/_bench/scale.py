"""How the time of a step grows with images, batch, RoIs, classes and ranks."""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from mmengine.config import Config
from torch import multiprocessing

from _bench.pairs import SHAPES, Shape, build_pair, recipe
from _bench.report import Row
from _bench.timing import Budget, Times, interleave, ratio
from kd_det.losses import nd_loss

METHOD = "review_nd"
SIDES = (128, 256, 512)
BATCHES = (2, 4, 8, 16)
ROIS = (32, 64, 128, 256)
CLASSES = (80, 365, 1203)
RANKS, LINKED, WARM_UP = 2, "2 ranks", 2
CLOCKS = {"time": time.perf_counter, "processor time": time.process_time}


def measure(budget: Budget, shape: str) -> list[Row]:
    """Rows of this suite."""
    base = SHAPES[shape]
    sizes: dict[str, dict[int, Callable[[], object]]] = {
        "pixels": {
            side * side: _step(dataclasses.replace(base, image=(side, side)), budget)
            for side in SIDES
        },
        "images a batch": {n: _step(dataclasses.replace(base, batch=n), budget) for n in BATCHES},
        "RoIs an image": {n: _step(base, budget, _with_rois(n)) for n in ROIS},
        "classes, nd_loss": {n: _nd(n, budget) for n in CLASSES},
    }
    rows: list[Row] = []
    for what, steps in sizes.items():
        target = 0.1 if what.startswith("classes") else 1.0
        rows += _fitted(shape, what, steps, budget, target)
    return rows + _ranks(shape, budget)


def _fitted(
    shape: str, what: str, steps: dict[int, Callable[[], object]], budget: Budget, target: float
) -> list[Row]:
    """A row for each size, and one of the exponent that fits them."""
    times = interleave({str(size): step for size, step in steps.items()}, budget)
    medians = {size: 1000 * statistics.median(times[str(size)]) for size in steps}
    rows = [Row("scale", shape, f"{size} {what}", ms) for size, ms in medians.items()]
    fitted = exponent(medians)
    text = "fitted exponent"
    return [*rows, Row("scale", shape, f"time over {what}", fitted, "", None, text, fitted, target)]


def exponent(values: dict[int, float]) -> float:
    """The ``k`` for which ``size ** k`` fits the values best, by least squares of logarithms."""
    return float(np.polyfit(np.log(list(values)), np.log(list(values.values())), 1)[0])


def _step(
    shape: Shape, budget: Budget, change: Callable[[Config], None] | None = None
) -> Callable[[], object]:
    cfg = recipe(shape, METHOD)
    if change is not None:
        change(cfg)
    return build_pair(cfg, shape, budget.device).step


def _with_rois(number: int) -> Callable[[Config], None]:
    def change(cfg: Config) -> None:
        for detector in (cfg.model.architecture, cfg.model.teacher):
            detector.train_cfg.rcnn.sampler.num = number
            # Enough proposals to fill them.
            detector.train_cfg.rpn_proposal.update(nms_pre=1000, max_per_img=500)

    return change


def _nd(classes: int, budget: Budget) -> Callable[[], object]:
    torch.manual_seed(0)
    s, t = (torch.randn(1024, 1024, device=budget.device) for _ in range(2))
    s.requires_grad_()
    centers = torch.randn(classes, 1024, device=budget.device)
    labels = torch.randint(0, classes, (1024,), device=budget.device)

    def both() -> None:
        s.grad = None
        nd_loss(s, t, centers, labels).mean().backward()

    return both


def _ranks(shape: str, budget: Budget) -> list[Row]:
    """One process, two that know nothing of each other, and two on gloo, in turns.

    One thread and as many images for each process. Two apart are what the machine allows; what the
    processor spent tells the cost of gloo where other work takes the cores.
    """
    if budget.device.type != "cpu":
        return []
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_of_rank, (folder, shape, budget), nprocs=RANKS)
        files = sorted(Path(folder).glob("*.json"))
        found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    rows = []
    alone, *others = found[0]["time"]
    for clock, of_both in (("time", max), ("processor time", statistics.fmean)):
        times = {alone: found[0][clock][alone]}
        for case in others:
            times[case] = [of_both(each) for each in zip(*(rank[clock][case] for rank in found))]
        medians = {case: 1000 * statistics.median(seconds) for case, seconds in times.items()}
        rows.append(Row("scale", shape, f"{alone}, {clock}", medians[alone]))
        for case in others:
            row = Row("scale", shape, f"{case}, {clock}", medians[case])
            text, rate = f"images a second, of {alone}", RANKS / ratio(times, case, [alone])
            linked = case == LINKED
            target = 1.7 if linked else None
            rows.append(
                dataclasses.replace(row, against=text, ratio=rate, target=target, at_least=linked)
            )
    return rows


def _of_rank(rank: int, folder: str, shape: str, budget: Budget) -> None:
    from mmengine.model import MMDistributedDataParallel

    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=RANKS)
    pair = build_pair(recipe(SHAPES[shape], METHOD), SHAPES[shape], budget.device)
    wrapped = MMDistributedDataParallel(pair.model, broadcast_buffers=False)  # as a Runner has it

    def step(model: torch.nn.Module) -> None:
        with pair.step_of(pair.optimizer):
            losses = model(pair.inputs, pair.samples, mode="loss")
            pair.total(losses).backward()

    def first_alone() -> None:
        if rank == 0:
            step(pair.model)

    cases = {
        "1 process": first_alone,
        "2 processes apart": lambda: step(pair.model),
        LINKED: lambda: step(wrapped),
    }
    times: dict[str, Times] = {clock: {case: [] for case in cases} for clock in CLOCKS}
    for number in range(WARM_UP + budget.rounds):
        for case, call in cases.items():
            dist.barrier()
            start = [read() for read in CLOCKS.values()]
            call()
            for clock, read, before in zip(CLOCKS, CLOCKS.values(), start):
                times[clock][case] += [read() - before] * (number >= WARM_UP)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(times), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()
