"""Losses and connectors alone, forward and backward, against the plainest way to compute them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from _bench.report import Against, Row, time_rows
from _bench.timing import Budget, interleave
from kd_det.connectors import ReviewFusion
from kd_det.losses import (
    center_contrast_loss,
    cwd_loss,
    dkd_loss,
    hcl_loss,
    nd_loss,
)
from kd_det.report.cost import count_flops

ROIS, DIM, CLASSES = 1024, 1024, 81
CHANNELS = 256
# Height and width of the pyramid's finest level, for one image.
FINEST = {"digits": (32, 32), "coco": (200, 336)}


def measure(budget: Budget, shape: str) -> list[Row]:
    """Rows of this suite."""
    torch.manual_seed(0)
    return [*_rows_of_rois(budget), *_rows_of_pyramids(budget, shape)]


def _step(leaves: Sequence[Tensor], loss: Callable[[], Tensor]) -> Callable[[], None]:
    """Forward and backward; gradients do not add up."""

    def step() -> None:
        for leaf in leaves:
            leaf.grad = None
        loss().backward()

    return step


def _rows_of_rois(budget: Budget) -> list[Row]:
    device = budget.device
    s = torch.randn(ROIS, DIM, device=device, requires_grad=True)
    t, centers = torch.randn(ROIS, DIM, device=device), torch.randn(CLASSES, DIM, device=device)
    labels = torch.randint(0, CLASSES, (ROIS,), device=device)
    s_logits = torch.randn(ROIS, CLASSES, device=device, requires_grad=True)
    t_logits = torch.randn(ROIS, CLASSES, device=device)

    def nd() -> Tensor:
        return nd_loss(s, t, centers, labels).mean()

    def cosine() -> Tensor:
        return 1 - F.cosine_similarity(s, centers[labels]).mean()

    def contrast() -> Tensor:
        return center_contrast_loss(s, centers, labels).mean()

    def cross_entropy() -> Tensor:
        return F.cross_entropy(F.normalize(s) @ F.normalize(centers).T / 0.1, labels)

    def dkd() -> Tensor:
        return dkd_loss(s_logits, t_logits, labels).mean()

    def kl() -> Tensor:
        log_s, log_t = s_logits.log_softmax(1), t_logits.log_softmax(1)
        return F.kl_div(log_s, log_t, log_target=True, reduction="batchmean")

    embeddings, logits = f"N {ROIS}, D {DIM}, C {CLASSES}", f"N {ROIS}, C {CLASSES}"
    loop, plain = "loop over RoIs", "gather, cosine_similarity, mean"
    product = "cosines to all centers, cross_entropy"
    rows = []
    for case, name, loss, other, form, target, at_least in (
        (embeddings, "nd_loss", nd, loop, lambda: _nd_by_loop(s, t, centers, labels), 100, True),
        (embeddings, "nd_loss", nd, plain, cosine, 1.3, False),
        (embeddings, "center_contrast_loss", contrast, product, cross_entropy, None, False),
        (logits, "dkd_loss", dkd, "KL divergence", kl, None, False),
    ):
        work = {name: _step([s, s_logits], loss), other: _step([s, s_logits], form)}
        against = {name: Against([other], "", target, at_least)}
        rows += time_rows("losses", case, interleave(work, budget), against)
    return rows


def _nd_by_loop(s: Tensor, t: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
    """The published formula, RoI by RoI, as the published detection code has it."""
    total = s.new_zeros(())
    for i in range(len(s)):
        center = centers[int(labels[i])]
        direction = center / center.norm()
        norm = max(s[i].norm(), t[i].norm())
        total = total + 1 - s[i] @ direction / norm
    return total / len(s)


def _rows_of_pyramids(budget: Budget, shape: str) -> list[Row]:
    device, (height, width) = budget.device, FINEST[shape]
    # The fifth level is every second entry of the fourth, as in mmdet's FPN.
    sizes = [(-(-height // 2**i), -(-width // 2**i)) for i in range(5)]
    s = [torch.randn(1, CHANNELS, *size, device=device, requires_grad=True) for size in sizes]
    t = [torch.randn(1, CHANNELS, *size, device=device) for size in sizes]
    fusion = ReviewFusion([CHANNELS] * 5, [CHANNELS] * 5, CHANNELS).to(device).train()
    conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False).to(device)
    leaves = [*s, *fusion.parameters(), *conv.parameters()]

    def squares() -> Tensor:
        return torch.stack([F.mse_loss(a, b) for a, b in zip(s, t)]).sum()

    fuse = _step(leaves, lambda: torch.stack([x.sum() for x in fusion(s)]).sum())
    convolve = _step(leaves, lambda: conv(s[0]).sum())
    convolutions = _step(leaves, lambda: _convolutions(fusion, s))
    times = interleave(
        {
            "hcl_loss": _step(leaves, lambda: hcl_loss(s, t)),
            "cwd_loss": _step(leaves, lambda: cwd_loss(s, t)),
            "mse_loss of each level": _step(leaves, squares),
            "ReviewFusion": fuse,
            "its convolutions": convolutions,
            "3x3 convolution": convolve,
        },
        budget,
    )
    case = f"{CHANNELS} channels, {height} x {width} and four coarser levels"
    against = {
        name: Against(["mse_loss of each level"], "", 3) for name in ("hcl_loss", "cwd_loss")
    }
    against["ReviewFusion"] = Against(["its convolutions"], "", 1.3)
    rows = time_rows("losses", case, times, against)
    return rows + [_at_convolution_rate(rows, name, f) for name, f in _work(fuse, convolve, s)]


def _convolutions(fusion: ReviewFusion, s: Sequence[Tensor]) -> Tensor:
    """Run all convolutions of a fusion on maps of their sizes, and nothing else."""
    outputs = []
    abf: Any  # a module, whose parts mypy does not know
    for abf, x in zip(fusion.abfs, reversed(s)):
        carried = abf.conv1[0](x)
        outputs.append(abf.conv2[0](carried))
        if abf.att_conv is not None:
            outputs += [F.conv2d(carried, each) for each in abf.att_conv[0].weight.chunk(2, dim=1)]
    return torch.stack([x.sum() for x in outputs]).sum()


def _work(fuse: Callable, convolve: Callable, s: Sequence[Tensor]) -> list[tuple[str, float]]:
    """Multiply-adds of each as a share of those of the one convolution; none before torch 2.1."""
    fusion, convolution = count_flops(fuse), count_flops(convolve)
    if fusion is None or convolution is None:
        return []
    # A difference, a square and three pools, twice for the backward pass; torch counts none.
    hcl = 2 * 2 * 5 * sum(x.numel() for x in s)
    return [("ReviewFusion", fusion / convolution), ("hcl_loss", hcl / convolution)]


def _at_convolution_rate(rows: Sequence[Row], name: str, share: float) -> Row:
    """What the multiply-adds of ``name`` would take at the rate of the one convolution."""
    medians = {row.name: row.value for row in rows}
    floor = share * medians["3x3 convolution"]
    what = f"{name}: its multiply-adds at the convolution's rate"
    text = f"{name} takes so many times that"
    return Row("losses", rows[0].case, what, floor, against=text, ratio=medians[name] / floor)
