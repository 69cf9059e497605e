"""What every loss of the family promises. A new loss is one more entry in `FAMILY`.

MMRazor's KLDivergence is not of the family, but the configs put it beside ours: here it is
compared with the published KD loss.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from kd_det.centers import ClassCenters
from kd_det.losses import (
    BinaryKDLoss,
    BoxKDLoss,
    CenterContrastLoss,
    CenterCosineLoss,
    CWDLoss,
    DKDLoss,
    FeatureNormLoss,
    HCLLoss,
    LDLoss,
    NDLoss,
    QueryBoxLoss,
    QueryKDLoss,
)

CLASSES, DIM = 5, 8


class Member(NamedTuple):
    """How to build a loss from its weight, what its tensors look like, and how to call it."""

    build: Callable[[float], nn.Module]
    shapes: list[tuple[int, ...]]  # of the student's and the teacher's tensors, without N
    call: Callable[[nn.Module, list[Tensor], list[Tensor], Tensor], Tensor]
    # Whether the target is the student's own detached value: the loss is then a constant, which
    # says nothing of its gradient.
    own_target: bool = False
    device: torch.device = torch.device("cpu")

    def module(self, loss_weight: float = 1.0) -> nn.Module:
        return self.build(loss_weight).to(self.device)


def with_centers(kind: type) -> Callable[[float], nn.Module]:
    def build(loss_weight: float) -> nn.Module:
        centers = ClassCenters(CLASSES, DIM)
        generator = torch.Generator().manual_seed(7)
        centers.update(torch.randn(CLASSES, DIM, generator=generator), torch.arange(CLASSES))
        loss = kind(CLASSES, DIM, loss_weight)
        loss.set_centers(centers)
        return loss

    return build


def call_labelled(loss: nn.Module, s: list[Tensor], t: list[Tensor], labels: Tensor) -> Tensor:
    return loss(s[0], t[0], labels)


def call_pair(loss: nn.Module, s: list[Tensor], t: list[Tensor], labels: Tensor) -> Tensor:
    return loss(s[0], t[0])


def call_pyramids(loss: nn.Module, s: list[Tensor], t: list[Tensor], labels: Tensor) -> Tensor:
    return loss(s, t)


def positives(feats: list[Tensor], labels: Tensor) -> list[Tensor]:
    """One position of each level of each image."""
    images = torch.arange(len(labels), device=labels.device)
    middle = [torch.full_like(labels, x) for x in (1, 2)]
    return [torch.stack([images, *middle, labels], dim=1) for _ in feats]


def call_maps(loss: nn.Module, s: list[Tensor], t: list[Tensor], labels: Tensor) -> Tensor:
    return loss(s, t, positives(s, labels))


def call_region(loss: nn.Module, s: list[Tensor], t: list[Tensor], labels: Tensor) -> Tensor:
    region = [at - at.new_tensor([0, 1, 1, 0]) for at in positives(s, labels)]
    return loss(s, t, positives(s, labels), region)


def call_distributions(loss: nn.Module, s: list[Tensor], t: list[Tensor], labels: Tensor) -> Tensor:
    return loss(s, t, t_logits=[x[:, :3] for x in t])


def call_boxes(loss: nn.Module, s: list[Tensor], t: list[Tensor], labels: Tensor) -> Tensor:
    """Boxes around a point, with these distances to their edges."""
    outward = s[0].new_tensor([-1, -1, 1, 1, -1, -1, 1, 1])[:, None, None]
    boxes = [[x.abs() * outward for x in side] for side in (s, t)]
    # No gradient reaches the student's class maps, which are those of other features.
    return loss(*boxes, t, [x.detach().flip(1) for x in t], positives(s, labels))


def call_queries(loss: nn.Module, s: list[Tensor], t: list[Tensor], labels: Tensor) -> Tensor:
    return loss(s[0], t[0], t[0])


FAMILY = {
    "nd": Member(with_centers(NDLoss), [(DIM,)], call_labelled),
    "nd_dense": Member(with_centers(NDLoss), [(DIM, 4, 5), (DIM, 2, 3)], call_maps),
    "center_cosine": Member(with_centers(CenterCosineLoss), [(DIM,)], call_labelled),
    "center_contrast": Member(with_centers(CenterContrastLoss), [(DIM,)], call_labelled),
    "feature_l2": Member(partial(FeatureNormLoss, "l2", 1.0), [(DIM,)], call_pair),
    "sifn": Member(partial(FeatureNormLoss, "sifn", 0.5), [(DIM,)], call_pair, own_target=True),
    "dkd": Member(partial(DKDLoss, 1.0, 0.25, 2.0), [(CLASSES,)], call_labelled),
    "cwd": Member(partial(CWDLoss, tau=2.0), [(3, 8, 6), (3, 2, 5)], call_pyramids),
    "cwd_relative": Member(partial(CWDLoss, relative=True), [(3, 8, 6), (3, 2, 5)], call_pyramids),
    "hcl": Member(
        HCLLoss,
        [(3, 8, 6), (3, 2, 5), (3, 1, 4), (3,)],
        call_pyramids,
    ),
    "binary_kd": Member(BinaryKDLoss, [(6, 4, 5), (6, 2, 3)], call_maps),
    "binary_kd_softmax": Member(partial(BinaryKDLoss, softmax=3), [(6, 4, 5)], call_maps),
    "box_kd": Member(BoxKDLoss, [(8, 4, 5), (8, 2, 3)], call_boxes),
    "box_kd_giou": Member(
        partial(BoxKDLoss, weight="teacher", giou=True), [(8, 4, 5), (8, 2, 3)], call_boxes
    ),
    "ld": Member(partial(LDLoss, tau=2.0), [(12, 4, 5), (12, 2, 3)], call_region),
    "ld_everywhere": Member(partial(LDLoss, tau=2.0), [(12, 4, 5)], call_distributions),
    "query_kd": Member(QueryKDLoss, [(6, 3)], call_pair),
    "query_kd_softmax": Member(partial(QueryKDLoss, softmax=True), [(6, 3)], call_pair),
    "query_box": Member(QueryBoxLoss, [(6, 4)], call_queries),
}


@pytest.fixture(params=FAMILY)
def member(request, device) -> Member:
    return FAMILY[request.param]._replace(device=device)


def inputs(member: Member, samples: int = 4) -> tuple[list[Tensor], list[Tensor]]:
    """Student's and teacher's tensors."""
    generator = torch.Generator().manual_seed(0)

    def side() -> list[Tensor]:
        maps = [torch.randn(samples, *shape, generator=generator) for shape in member.shapes]
        return [x.to(member.device) for x in maps]

    return side(), side()


def run(
    member: Member,
    s: list[Tensor],
    t: list[Tensor],
    module: nn.Module | None = None,
    first_label: int = 0,
) -> tuple[Tensor, list[Tensor]]:
    """Loss, of weight 1 if not given, and its gradients at the student's tensors."""
    s = [x.detach().requires_grad_() for x in s]
    labels = torch.arange(first_label, first_label + len(s[0]), device=member.device) % CLASSES
    loss = member.call(module or member.module(), s, t, labels)
    with torch.autocast(
        member.device.type, enabled=False
    ):  # a step's backward pass is outside of autocast
        return loss.detach(), list(torch.autograd.grad(loss, s))


def assert_same(found: tuple[Tensor, list[Tensor]], expected: tuple[Tensor, list[Tensor]], **close):
    torch.testing.assert_close(found[0], expected[0], **close)
    torch.testing.assert_close(found[1], expected[1], **close)


def test_gives_a_float32_scalar(member):
    loss, _ = run(member, *inputs(member))
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert loss > 0


def test_gradient_reaches_the_student_and_never_the_teacher(member):
    s, t = inputs(member)
    for x in s + t:
        x.requires_grad_()
    member.call(member.module(), s, t, torch.arange(4, device=member.device)).backward()
    assert all(x.grad.abs().sum() > 0 for x in s)
    assert all(x.grad is None for x in t)


@pytest.mark.parametrize("loss_weight", [0.0, 2.5])
def test_weight_is_applied_once(member, loss_weight):
    loss, grads = run(member, *inputs(member))
    weighted = run(member, *inputs(member), member.module(loss_weight))
    assert_same(weighted, (loss * loss_weight, [g * loss_weight for g in grads]))


def test_negative_weight_is_an_error(member):
    with pytest.raises(ValueError, match="loss_weight"):
        member.module(-1.0)


def test_autocast_changes_nothing(member):
    plain = run(member, *inputs(member))
    with torch.autocast(member.device.type, dtype=torch.bfloat16):
        assert_same(run(member, *inputs(member)), plain, rtol=0, atol=0)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_is_computed_in_float32(member, dtype, autocast):
    s, t = ([x.to(dtype) for x in side] for side in inputs(member))
    with torch.autocast(member.device.type, dtype=torch.bfloat16, enabled=autocast):
        loss, grads = run(member, s, t)
    expected, expected_grads = run(member, [x.float() for x in s], [x.float() for x in t])
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)
    assert [g.dtype for g in grads] == [dtype] * len(s)
    torch.testing.assert_close(grads, [g.to(dtype) for g in expected_grads])


def test_float16_does_not_overflow(member):
    # 6e4 squared is beyond float16; so is the sum of a few of them.
    s, t = ([x.sign().half() * 6e4 for x in side] for side in inputs(member))
    loss, grads = run(member, s, t)
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in grads)


def test_float64_input_is_computed_in_float64(member):
    s, t = ([x.double() for x in side] for side in inputs(member))
    loss, grads = run(member, s, t)
    assert loss.dtype == torch.float64
    assert all((g != g.float()).any() for g in grads)  # digits that float32 does not have
    # A step that float32 cannot see changes the loss.
    moved, _ = run(member, [x + 1e-10 for x in s], t)
    slope = 0.0 if member.own_target else sum(float(g.sum()) for g in grads)
    assert float(moved - loss) == pytest.approx(1e-10 * slope, rel=1e-3)


def test_empty_input_gives_a_zero_that_reaches_the_parameters(member):
    s, t = inputs(member, samples=0)
    parameter = nn.Parameter(torch.ones((), device=member.device))
    labels = torch.zeros(0, dtype=torch.int64, device=member.device)
    loss = member.call(member.module(), [x * parameter for x in s], t, labels)
    assert loss.shape == ()
    assert loss == 0
    loss.backward()
    assert parameter.grad == 0


def test_a_batch_costs_the_mean_of_its_samples(member):
    s, t = inputs(member, samples=7)
    alone = [
        run(member, [x[i : i + 1] for x in s], [x[i : i + 1] for x in t], first_label=i)
        for i in range(7)
    ]
    mean = torch.stack([loss for loss, _ in alone]).mean()
    grads = [torch.cat(levels) / 7 for levels in zip(*(grads for _, grads in alone))]
    assert_same(run(member, s, t), (mean, grads))


def test_memory_layout_does_not_matter(member):
    s, t = inputs(member)
    strided = [[torch.stack([x, x + 1], dim=-1)[..., 0] for x in side] for side in (s, t)]
    assert not any(x.is_contiguous() for side in strided for x in side)
    assert_same(run(member, *strided), run(member, s, t))


@pytest.mark.parametrize("s_factor", [0.0, 1e-30, 1.0, 1e30])
@pytest.mark.parametrize("t_factor", [0.0, 1e-30, 1.0, 1e30])
def test_finite_input_gives_no_nan(member, s_factor, t_factor):
    s, t = inputs(member)
    loss, grads = run(member, [x * s_factor for x in s], [x * t_factor for x in t])
    assert not loss.isnan()
    assert not any(g.isnan().any() for g in grads)


def test_state_dict_restores_the_loss(member):
    s, t = inputs(member)
    saved, restored = member.module(), member.module()
    for tensor in restored.state_dict().values():
        tensor.zero_()
    restored.load_state_dict(saved.state_dict(), strict=True)
    assert_same(run(member, s, t, restored), run(member, s, t, saved))


def test_input_is_not_changed(member):
    s, t = inputs(member)
    before = [x.clone() for x in s + t]
    run(member, s, t)
    assert all(torch.equal(x, y) for x, y in zip(s + t, before))


def test_is_in_the_registry_under_its_own_name(member):
    from kd_det.registry import MODELS

    loss = type(member.module())
    assert MODELS.get(loss.__name__) is loss


def test_kl_divergence_of_mmrazor_equals_the_published_kd(golden):
    from mmrazor.models.losses import KLDivergence

    import kd_det  # noqa: F401  (makes mmrazor importable)

    data = golden("kd_loss_a")
    s = data["student_logits"].requires_grad_()
    loss = KLDivergence(tau=float(data["T"]), loss_weight=float(data["kd_weight"]))(
        s, data["teacher_logits"]
    )
    loss.backward()
    torch.testing.assert_close(loss, data["loss"], rtol=1e-6, atol=0)
    torch.testing.assert_close(s.grad, data["grad_student"], rtol=1e-4, atol=1e-6)
