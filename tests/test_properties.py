"""Properties of the pure functions and of ClassCenters, on inputs that Hypothesis makes up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from kd_det.centers import ClassCenters, ClassCentersError
from kd_det.losses import (
    center_contrast_loss,
    center_cosine_loss,
    cwd_loss,
    dkd_loss,
    hcl_loss,
    nd_loss,
)

settings.register_profile(
    "quick",
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("quick")

# All that float32 has without inf and NaN, subnormal numbers included.
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
MODERATE = st.floats(-100, 100, width=32)
# Zero, or large enough that a hundredth has all the digits of float32. Subnormal numbers have less.
SCALABLE = MODERATE.filter(lambda x: x == 0 or abs(x) >= 1e-30)


def matrix(rows: int, columns: int, numbers: st.SearchStrategy = NUMBERS) -> st.SearchStrategy:
    return arrays("float32", (rows, columns), elements=numbers).map(torch.from_numpy)


@st.composite
def samples(draw: st.DrawFn, numbers: st.SearchStrategy = NUMBERS) -> tuple[Tensor, ...]:
    """Student, teacher and centers with labels, of any sizes from nothing on."""
    n, c, d = draw(st.integers(0, 6)), draw(st.integers(2, 4)), draw(st.integers(1, 5))
    labels = torch.tensor(draw(st.lists(st.integers(0, c - 1), min_size=n, max_size=n)))
    s, t, centers = (draw(matrix(k, d, numbers)) for k in (n, n, c))
    return s, t, centers, labels.to(torch.int64)


CLASS_MEANS = {
    "nd": lambda s, t, centers, labels: nd_loss(s, t, centers, labels),
    "cosine": lambda s, t, centers, labels: center_cosine_loss(s, centers, labels),
    "contrast": lambda s, t, centers, labels: center_contrast_loss(s, centers, labels),
}


@pytest.mark.parametrize("name", CLASS_MEANS)
@given(data=samples())
def test_class_mean_losses_are_finite_with_finite_gradients(name, data):
    s, t, centers, labels = data
    s = s.clone().requires_grad_()
    losses = CLASS_MEANS[name](s, t, centers, labels)
    assert losses.shape == labels.shape and losses.dtype == torch.float32
    assert losses.isfinite().all() and (losses >= -1e-6).all()
    (gradient,) = torch.autograd.grad(losses.sum(), s)
    assert not gradient.isnan().any()
    if name != "contrast":
        assert (losses <= 2 + 1e-5).all()


@pytest.mark.parametrize("name", CLASS_MEANS)
@given(data=samples(MODERATE), order=st.randoms(use_true_random=False))
def test_order_of_samples_does_not_matter(name, data, order):
    s, t, centers, labels = data
    places = list(range(len(labels)))
    order.shuffle(places)
    losses = CLASS_MEANS[name](s, t, centers, labels)
    shuffled = CLASS_MEANS[name](s[places], t[places], centers, labels[places])
    torch.testing.assert_close(losses[places], shuffled)


@given(data=samples(SCALABLE), factor=st.floats(0.01, 100))
def test_nd_does_not_depend_on_the_scale_of_both_sides(data, factor):
    s, t, centers, labels = data
    torch.testing.assert_close(
        nd_loss(s * factor, t * factor, centers, labels),
        nd_loss(s, t, centers, labels),
        atol=1e-4,
        rtol=1e-4,
    )


@given(
    logits=st.integers(1, 5).flatmap(
        lambda n: st.integers(2, 5).flatmap(
            lambda c: st.tuples(*[matrix(n, c, st.floats(-1e4, 1e4, width=32))] * 2)
        )
    ),
    tau=st.sampled_from([0.5, 1.0, 4.0]),
)
def test_dkd_is_finite_and_zero_for_equal_logits(logits, tau):
    s, t = logits
    labels = torch.arange(len(s)) % s.shape[1]
    s = s.clone().requires_grad_()
    losses = dkd_loss(s, t, labels, 1.0, 8.0, tau)
    assert losses.isfinite().all() and (losses >= -1e-3).all()
    (gradient,) = torch.autograd.grad(losses.sum(), s)
    assert gradient.isfinite().all()
    torch.testing.assert_close(dkd_loss(t, t, labels, 1.0, 8.0, tau), torch.zeros(len(t)))


@st.composite
def pyramids(draw: st.DrawFn) -> tuple[list[Tensor], list[Tensor]]:
    n, c = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    sides = draw(st.lists(st.tuples(*[st.integers(1, 6)] * 2), min_size=1, max_size=3))
    number = st.floats(-1e4, 1e4, width=32)
    s, t = (
        [
            draw(arrays("float32", (n, c, *side), elements=number).map(torch.from_numpy))
            for side in sides
        ]
        for _ in range(2)
    )
    return s, t


@pytest.mark.parametrize("loss", [hcl_loss, cwd_loss])
@given(data=pyramids())
def test_losses_on_pyramids_are_finite_and_zero_for_equal_ones(loss, data):
    s, t = data
    s = [x.clone().requires_grad_() for x in s]
    value = loss(s, t)
    assert value.dim() == 0 and value.isfinite() and value >= -1e-3
    assert all(g.isfinite().all() for g in torch.autograd.grad(value, s))
    torch.testing.assert_close(loss(t, t), torch.zeros(()), atol=1e-4, rtol=0)


@st.composite
def gathered(draw: st.DrawFn) -> list[tuple[Tensor, Tensor]]:
    """Batches of embeddings of three classes in four dimensions."""
    batches = draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    labels = st.integers(0, 2)
    return [
        (
            draw(matrix(n, 4, MODERATE)),
            torch.tensor(draw(st.lists(labels, min_size=n, max_size=n)), dtype=torch.int64),
        )
        for n in batches
    ]


def centers_of(batches: list[tuple[Tensor, Tensor]]) -> ClassCenters:
    centers = ClassCenters(3, 4)
    for emb, labels in batches:
        centers.update(emb, labels)
    return centers


def merged(*parts: ClassCenters) -> ClassCenters:
    whole = ClassCenters(3, 4)
    for part in parts:
        whole.merge(part)
    return whole


@given(a=gathered(), b=gathered(), c=gathered())
def test_merging_is_associative_and_order_never_matters(a, b, c):
    x, y, z = map(centers_of, (a, b, c))
    whole = centers_of([*a, *b, *c])
    for other in (merged(merged(x, y), z), merged(x, merged(y, z)), merged(z, y, x)):
        assert torch.equal(other.counts, whole.counts)
        torch.testing.assert_close(other.means, whole.means, rtol=1e-6, atol=1e-6)


@given(batches=gathered())
def test_saving_and_loading_changes_nothing(batches, tmp_path: Path):
    centers = centers_of(batches)
    centers.save(tmp_path / "c.safetensors")
    loaded = ClassCenters.load(tmp_path / "c.safetensors")
    assert torch.equal(loaded.means, centers.means) and torch.equal(loaded.counts, centers.counts)


@given(data=st.binary(max_size=200), suffix=st.sampled_from([".safetensors", ".json"]))
def test_arbitrary_bytes_are_our_error(data, suffix, tmp_path: Path):
    path = tmp_path / f"c{suffix}"
    path.write_bytes(data)
    with pytest.raises(ClassCentersError):
        ClassCenters.load(path)


@given(data=st.data())
def test_any_damage_to_a_file_is_our_error_or_none(data, tmp_path: Path):
    """A changed byte may hit what means nothing; it never brings other numbers."""
    path = tmp_path / "c.safetensors"
    centers = centers_of([(torch.randn(6, 4), torch.arange(6) % 3)])
    centers.save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        loaded = ClassCenters.load(path)
    except ClassCentersError:
        return
    # The checksum's own name in the header may have been hit.
    if b'"checksum"' in bytes(content):
        assert torch.equal(loaded.means, centers.means)
