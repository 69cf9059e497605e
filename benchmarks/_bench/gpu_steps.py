"""Steps of real pairs at COCO's size on a GPU, beside the student, the teacher and MMRazor."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from _bench import peer
from _bench.pairs import Pair, Shape, build_pair, recipe
from _bench.report import Row, time_rows
from _bench.step import teacher_forward
from _bench.timing import Budget, interleave, peak_memory
from kd_det.report.cost import count_flops

MiB = 2**20
# What changes a step by rounding at most. A teacher of another dtype than autocast's is left out.
BEST = dict(fuse_conv_bn=True, channels_last=True, overlap_teacher=True)
TWO_STAGE, DENSE = "configs/frcnn_r101_r18_{}.py", "configs/retinanet_r101_r50_{}.py"
PEER = "KD and CWD"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Case:
    """A pair, its batch and the dtype of autocast."""

    method: str
    shape: Shape
    dtype: torch.dtype
    speed: dict[str, Any]

    def __str__(self) -> str:
        dtype = str(self.dtype).replace("torch.", "")
        compiled = ", compiled teacher" if "compile_teacher" in self.speed else ""
        return f"{self.method}, batch {self.shape.batch}, {dtype}{compiled}"


def cases(tiny: bool = False) -> Iterator[Case]:
    """The most telling first, since time may end before the list does."""
    if tiny:
        shape = Shape("configs/digits/{}.py", (64, 64), 1, objects=2)
        yield Case("review_nd", shape, torch.bfloat16, BEST)
        yield Case(PEER, shape, torch.float32, BEST)
        return
    for batch in (8, 16):
        for dtype in DTYPES:
            for method, recipes in (
                ("review_nd", TWO_STAGE),
                (PEER, TWO_STAGE),
                ("kd_nd", TWO_STAGE),
                ("review", DENSE),
            ):
                yield Case(method, Shape(recipes, (800, 1344), batch), dtype, BEST)
    compiled = {**BEST, "compile_teacher": True}
    shape = Shape(TWO_STAGE, (800, 1344), 8)
    yield Case("review_nd", shape, torch.bfloat16, compiled)


def product_rates(
    device: torch.device, size: int, dtypes: Iterable[torch.dtype]
) -> dict[torch.dtype, float]:
    """Floating-point operations a second of a large matrix product, by dtype; median of three."""
    budget, rates = Budget(0, 3, device), {}
    for dtype in dtypes:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        times = interleave({"product": partial(torch.mm, a, b)}, budget)["product"]
        rates[dtype] = 2 * size**3 / sorted(times)[1]
    return rates


def measure(case: Case, device: torch.device, peak: float, rounds: int) -> list[Row]:
    """Time, images a second, memory and share of ``peak`` operations a second of each work."""
    work, forget = _work(case, device)
    times = interleave(work, Budget(0, rounds, device))
    rows = time_rows("steps", str(case), times)
    medians = {row.name: row.value / 1000 for row in rows}
    for name, call in work.items():
        rate = case.shape.batch / medians[name]
        rows.append(Row("steps", str(case), f"{name}: rate", rate, "images/s"))
        used = peak_memory(call, device, forget) / MiB
        rows.append(Row("steps", str(case), f"{name}: peak memory", used, "MiB"))
        flops = None if "compile_teacher" in case.speed else count_flops(call)
        if flops is not None:
            share = 100 * flops / medians[name] / peak
            rows.append(Row("steps", str(case), f"{name}: of the product's rate", share, "%"))
    return rows


def _work(
    case: Case, device: torch.device
) -> tuple[dict[str, Callable[[], None]], Callable[[], None]]:
    """What is timed, and what drops the records that MMRazor's algorithm leaves behind."""
    if case.method == PEER:
        theirs = _pair(case, device, {}, peer.PEER)
        peer.switch_inplace_on(theirs.model)
        ours = {
            "as it is": _pair(case, device, {}, peer.OURS).step,
            "best options": _pair(case, device, case.speed, peer.OURS).step,
        }
        return {"MMRazor": theirs.step, **ours}, partial(peer.forget, theirs.model)
    plain, best = _pair(case, device, {}), _pair(case, device, case.speed)
    work = {
        "student alone": plain.student_step,
        "teacher alone": teacher_forward(plain),
        "as it is": plain.step,
        "best options": best.step,
    }
    return work, lambda: None


def _pair(
    case: Case, device: torch.device, speed: dict[str, Any], algorithm: str | None = None
) -> Pair:
    cfg = recipe(case.shape, "kd" if algorithm else case.method)
    if algorithm:
        cfg = peer.configuration(cfg, algorithm)
    if speed:
        cfg.model.speed = speed
    return build_pair(cfg, case.shape, device, case.dtype)


def free(device: torch.device) -> None:
    """Give the memory of a case back, also after one that ran out of it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
