"""Losses and connectors alone, forward and backward, against the plainest way to compute them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


# RoIs


def _rows_of_rois(budget: Budget) -> list[Row]:
    device = budget.device
    s = torch.randn(ROIS, DIM, device=device, requires_grad=True)
    t, centers = torch.randn(ROIS, DIM, device=device), torch.randn(CLASSES, DIM, device=device)
    labels = torch.randint(0, CLASSES, (ROIS,), device=device)
    case = f"N {ROIS}, D {DIM}, C {CLASSES}"

    def backward(loss: Callable[[], Tensor]) -> Callable[[], None]:
        def both() -> None:
            s.grad = None
            loss().backward()

        return both

    loop, plain = "loop over RoIs", "gather, cosine_similarity, mean"
    slow = interleave(
        {
            "nd_loss": backward(lambda: nd_loss(s, t, centers, labels).mean()),
            loop: backward(lambda: _nd_by_loop(s, t, centers, labels)),
        },
        budget,
    )
    fast = interleave(
        {
            "nd_loss": backward(lambda: nd_loss(s, t, centers, labels).mean()),
            plain: backward(lambda: 1 - F.cosine_similarity(s, centers[labels]).mean()),
        },
        budget,
    )
    product = "cosines to all centers, cross_entropy"
    contrast = interleave(
        {
            "center_contrast_loss": backward(
                lambda: center_contrast_loss(s, centers, labels).mean()
            ),
            product: backward(
                lambda: F.cross_entropy(F.normalize(s) @ F.normalize(centers).T / 0.1, labels)
            ),
        },
        budget,
    )
    return [
        *time_rows("losses", case, slow, {"nd_loss": Against([loop], "", 100, at_least=True)}),
        *time_rows("losses", case, fast, {"nd_loss": Against([plain], "", 1.3)}),
        *time_rows("losses", case, contrast, {"center_contrast_loss": Against([product])}),
        *_rows_of_logits(budget),
    ]


def _rows_of_logits(budget: Budget) -> list[Row]:
    s = torch.randn(ROIS, CLASSES, device=budget.device, requires_grad=True)
    t = torch.randn(ROIS, CLASSES, device=budget.device)
    labels = torch.randint(0, CLASSES, (ROIS,), device=budget.device)

    def dkd() -> None:
        s.grad = None
        dkd_loss(s, t, labels).mean().backward()

    def kl() -> None:
        s.grad = None
        log_s, log_t = s.log_softmax(1), t.log_softmax(1)
        F.kl_div(log_s, log_t, log_target=True, reduction="batchmean").backward()

    times = interleave({"dkd_loss": dkd, "KL divergence": kl}, budget)
    case = f"N {ROIS}, C {CLASSES}"
    return time_rows("losses", case, times, {"dkd_loss": Against(["KL divergence"])})


def _nd_by_loop(s: Tensor, t: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
    """The published formula, RoI by RoI, as the published detection code has it."""
    total = s.new_zeros(())
    for i in range(len(s)):
        center = centers[int(labels[i])]
        direction = center / center.norm()
        norm = max(s[i].norm(), t[i].norm())
        total = total + 1 - s[i] @ direction / norm
    return total / len(s)


# Pyramids


def _rows_of_pyramids(budget: Budget, shape: str) -> list[Row]:
    device, (height, width) = budget.device, FINEST[shape]
    # The fifth level is every second entry of the fourth, as in mmdet's FPN.
    sizes = [(-(-height // 2**i), -(-width // 2**i)) for i in range(5)]
    s = [torch.randn(1, CHANNELS, *size, device=device, requires_grad=True) for size in sizes]
    t = [torch.randn(1, CHANNELS, *size, device=device) for size in sizes]
    fusion = ReviewFusion([CHANNELS] * 5, [CHANNELS] * 5, CHANNELS).to(device).train()
    ones = [torch.ones_like(x) for x in t]
    conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False).to(device)
    convolved = s[0]

    def of_pyramid(loss: Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]) -> None:
        _clear(s)
        loss(s, t).backward()

    def fuse() -> None:
        _clear(s)
        fusion.zero_grad()
        torch.autograd.backward(fusion(s), ones)

    def convolve() -> None:
        _clear(s)
        conv.zero_grad()
        conv(convolved).backward(ones[0])

    def squares(s: Sequence[Tensor], t: Sequence[Tensor]) -> Tensor:
        return torch.stack([F.mse_loss(a, b) for a, b in zip(s, t)]).sum()

    times = interleave(
        {
            "hcl_loss": lambda: of_pyramid(hcl_loss),
            "cwd_loss": lambda: of_pyramid(cwd_loss),
            "mse_loss of each level": lambda: of_pyramid(squares),
            "ReviewFusion": fuse,
            "3x3 convolution": convolve,
        },
        budget,
    )
    case = f"{CHANNELS} channels, {height} x {width} and four coarser levels"
    rows = time_rows(
        "losses",
        case,
        times,
        {name: Against(["mse_loss of each level"]) for name in ("hcl_loss", "cwd_loss")},
    )
    return rows + [_at_convolution_rate(rows, name, f) for name, f in _work(fuse, convolve, s)]


def _clear(leaves: Sequence[Tensor]) -> None:
    for leaf in leaves:
        leaf.grad = None


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
