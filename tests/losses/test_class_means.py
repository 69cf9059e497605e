"""What the losses against class means share: which samples take part, where centers come from."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kd_det.centers import ClassCenters
from kd_det.losses import (
    CenterContrastLoss,
    CenterCosineLoss,
    CentersNotSetError,
    NDLoss,
    center_contrast_loss,
    center_cosine_loss,
    nd_loss,
)
from kd_det.losses.class_means import ClassMeanLoss

CLASSES, DIM = 4, 6

# Each loss beside its function of student, teacher, the means of the classes seen, and labels
# that count among these.
SampleLosses = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
LOSSES: dict[type[ClassMeanLoss], SampleLosses] = {
    NDLoss: nd_loss,
    CenterCosineLoss: lambda s, t, means, labels: center_cosine_loss(s, means, labels),
    CenterContrastLoss: lambda s, t, means, labels: center_contrast_loss(s, means, labels),
}


@pytest.fixture(params=LOSSES, ids=lambda kind: kind.__name__)
def kind(request) -> type[ClassMeanLoss]:
    return request.param


@pytest.fixture
def rows() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Student, teacher, centers, labels."""
    generator = torch.Generator().manual_seed(0)
    s, t = (torch.randn(10, DIM, generator=generator) for _ in range(2))
    return s, t, torch.randn(CLASSES, DIM, generator=generator), torch.arange(10) % CLASSES


def centers_of(means: Tensor, counts: Tensor | None = None) -> ClassCenters:
    """Centers with exactly these means; by default each class was seen once."""
    counts = torch.ones(len(means), dtype=torch.int64) if counts is None else counts
    centers = ClassCenters(*means.shape)
    labels = torch.arange(len(means)).repeat_interleave(counts)
    centers.update(means[labels], labels)
    return centers


def loss_with(
    kind: type[ClassMeanLoss], means: Tensor, counts: Tensor | None = None, **options
) -> ClassMeanLoss:
    loss = kind(len(means) - options.get("background", False), means.shape[1], **options)
    loss.set_centers(centers_of(means, counts))
    return loss


# Which samples take part


@pytest.mark.parametrize("unseen", [0, 1])
@pytest.mark.parametrize("background, outside", [(False, [-1, 3, 255]), (True, [-1, 4, 255])])
def test_mean_over_the_samples_that_have_a_center(rows, kind, background, outside, unseen):
    s, t, centers, _ = rows
    means = centers if background else centers[:3]
    counts = torch.ones(len(means), dtype=torch.int64)
    counts[unseen] = 0
    loss = loss_with(kind, means, counts, background=background, loss_weight=2.0)
    labels = torch.tensor([1 - unseen, unseen, 2, *outside, 1 - unseen, 2, unseen, len(means) - 1])
    taking_part = torch.tensor([0, 2, 6, 7, 9])
    s.requires_grad_()
    value = loss(s, t, labels)
    (grad,) = torch.autograd.grad(value, s)

    alone = s.detach()[taking_part].requires_grad_()
    seen_row = (counts > 0).cumsum(0) - 1
    expected = 2.0 * LOSSES[kind](
        alone, t[taking_part], means[counts > 0], seen_row[labels[taking_part]]
    )
    (expected_grad,) = torch.autograd.grad(expected.mean(), alone)
    torch.testing.assert_close(value, expected.mean())
    torch.testing.assert_close(grad[taking_part], expected_grad)
    left_out = torch.ones(10, dtype=torch.bool).index_fill(0, taking_part, False)
    assert torch.equal(grad[left_out], torch.zeros(5, DIM))


@pytest.mark.parametrize("labels", [[CLASSES] * 10, [-1] * 10, [1] * 10])
def test_no_sample_with_a_center_gives_a_connected_zero(rows, kind, labels):
    s, t, centers, _ = rows
    s.requires_grad_()
    value = loss_with(kind, centers, torch.tensor([1, 0, 1, 1]))(s, t, torch.tensor(labels))
    value.backward()
    assert value == 0
    assert torch.equal(s.grad, torch.zeros_like(s))


def test_a_subclass_is_given_labels_of_seen_classes_alone(rows):
    class Labels(ClassMeanLoss):
        title = "labels"

        def sample_losses(self, s_emb: Tensor, t_emb: Tensor, labels: Tensor) -> Tensor:
            given.append(labels)
            return s_emb.sum(dim=1)

    given: list[Tensor] = []
    s, t, centers, _ = rows
    labels = torch.tensor([0, 1, 2, 3, 4, -1, 255, 2, 3, 1])
    loss_with(Labels, centers, torch.tensor([0, 0, 3, 1]))(s, t, labels)
    assert given[0].tolist() == [2, 2, 2, 3, 2, 2, 2, 2, 3, 2]


# Centers


@pytest.mark.parametrize("background", [False, True])
def test_takes_over_means_and_counts(rows, kind, background):
    counts = torch.tensor([2, 0, 1, 3])
    given = centers_of(rows[2], counts)
    loss = kind(CLASSES - background, DIM, background=background)
    loss.set_centers(given)
    assert torch.equal(loss.centers, given.means)
    assert torch.equal(loss.counts, counts)
    assert loss.has_centers


def test_without_background_the_background_row_is_left_out(rows, kind):
    loss = kind(CLASSES - 1, DIM)
    loss.set_centers(centers_of(rows[2]))
    assert torch.equal(loss.centers, rows[2][:-1])


@pytest.mark.parametrize(
    "options, message",
    [
        (
            dict(num_classes=CLASSES, background=True),
            r"of 5 classes \(the last is background\) and embedding size 6, found 4 classes",
        ),
        (dict(num_classes=CLASSES + 1), "of 5 classes and embedding size 6, found 4 classes"),
        (dict(num_classes=CLASSES - 2), "of 2 classes .* found 4 classes"),
        (
            dict(num_classes=CLASSES - 2, background=True),
            r"of 3 classes \(the last is background\) .* found 4 classes",
        ),
        (dict(num_classes=CLASSES, embed_dim=DIM + 1), "size 7, found 4 classes and size 6"),
    ],
)
def test_rejects_centers_that_do_not_fit(rows, kind, options, message):
    loss = kind(**{"embed_dim": DIM, **options})
    with pytest.raises(ValueError, match=f"{kind.__name__} expected centers .*{message}"):
        loss.set_centers(centers_of(rows[2]))
    assert not loss.has_centers


@pytest.mark.parametrize("counts", [[0, 0, 0, 0], [0, 0, 0, 5]])
def test_rejects_centers_in_which_none_of_its_classes_was_seen(rows, kind, counts):
    loss = kind(CLASSES - 1, DIM)  # the fourth row is background
    with pytest.raises(ValueError, match=f"{kind.__name__} .*no class was ever seen"):
        loss.set_centers(centers_of(rows[2], torch.tensor(counts)))


def test_without_centers_the_error_names_loss_and_hook(rows, kind):
    s, t, _, labels = rows
    message = rf"{kind.__name__} has no class centers: .*kd_det\.ClassCenterHook"
    with pytest.raises(CentersNotSetError, match=message):
        kind(CLASSES, DIM)(s, t, labels)


def test_only_nd_depends_on_the_teachers_embedding_itself(rows, kind):
    s, t, centers, labels = rows
    loss = loss_with(kind, centers)
    changed = loss(s, t * 3, labels) != loss(s, t, labels)
    assert changed == (kind is NDLoss)


# Errors


@pytest.mark.parametrize(
    "shapes, message",
    [
        (([3, 6], [3, 5], [3]), "same samples and size; got .*put a connector"),
        (([3, 6], [2, 6], [3]), r"s_emb \[3, 6\], t_emb \[2, 6\]"),
        (([3, 5], [3, 5], [3]), r"do not fit; .*centers \[4, 6\]"),
    ],
)
def test_shapes_that_do_not_fit_are_an_error_before_there_are_centers(kind, shapes, message):
    s, t = torch.zeros(shapes[0]), torch.zeros(shapes[1])
    with pytest.raises(ValueError, match=f"{kind.title}.*{message}"):
        kind(CLASSES, DIM)(s, t, torch.zeros(shapes[2], dtype=torch.int64))


@pytest.mark.parametrize("option", ["num_classes", "embed_dim"])
def test_sizes_are_positive(kind, option):
    with pytest.raises(ValueError, match=f"{kind.__name__} needs .*{option}=0"):
        kind(**{"num_classes": CLASSES, "embed_dim": DIM, option: 0})


# Shares of classes, as Mixup and CutMix give them


def shares_of(*rows: dict[int, float]) -> Tensor:
    shares = torch.zeros(len(rows), CLASSES)
    for row, given in enumerate(rows):
        for label, share in given.items():
            shares[row, label] = share
    return shares


def test_a_whole_share_is_a_label(rows, kind):
    s, t, means, labels = rows
    loss = loss_with(kind, means)
    shares = torch.nn.functional.one_hot(labels, CLASSES).float()
    torch.testing.assert_close(loss(s, t, shares), loss(s, t, labels))


@pytest.mark.parametrize("kind", [NDLoss, CenterCosineLoss])
def test_means_of_mixed_images_are_mixed(rows, kind):
    s, t, means, _ = rows
    mixed = means.clone()
    mixed[0] = 0.3 * means[1] + 0.7 * means[2]
    value = loss_with(kind, means)(s[:1], t[:1], shares_of({1: 0.3, 2: 0.7}))
    torch.testing.assert_close(value, loss_with(kind, mixed)(s[:1], t[:1], torch.tensor([0])))


def test_contrast_of_mixed_images_is_mixed(rows):
    s, t, means, _ = rows
    loss = loss_with(CenterContrastLoss, means)
    each = [loss(s[:1], t[:1], torch.tensor([label])) for label in (1, 2)]
    value = loss(s[:1], t[:1], shares_of({1: 0.3, 2: 0.7}))
    torch.testing.assert_close(value, 0.3 * each[0] + 0.7 * each[1])


def test_a_share_of_a_class_never_seen_takes_no_part(rows, kind):
    s, t, means, _ = rows
    loss = loss_with(kind, means, torch.tensor([1, 1, 1, 0]))
    s = s[:2].requires_grad_()
    value = loss(s, t[:2], shares_of({0: 1.0}, {0: 0.5, 3: 0.5}))
    torch.testing.assert_close(value, loss(s[:1], t[:1], torch.tensor([0])))
    (gradient,) = torch.autograd.grad(value, s)
    assert gradient[0].any() and not gradient[1].any()


def test_shares_of_another_number_of_classes_are_refused(rows, kind):
    s, t, means, _ = rows
    with pytest.raises(ValueError, match=rf"labels \[10, {CLASSES + 1}\]"):
        loss_with(kind, means)(s, t, torch.ones(10, CLASSES + 1))


def test_a_dense_heads_positives_are_its_samples(rows, kind):
    s, t, means, labels = rows
    loss = kind(CLASSES, DIM)
    loss.set_centers(centers_of(means))
    # Rows 0 to 5 on a map of 2 x 3, of one image, and 6 to 9 on maps of 1 x 2 of two.
    maps = [
        [x[:6].T.reshape(1, DIM, 2, 3), x[6:].reshape(2, 1, 2, DIM).permute(0, 3, 1, 2)]
        for x in (s, t)
    ]
    places = [torch.tensor([[0, 1, 2], [0, 0, 1]]), torch.tensor([[1, 0, 0]])]
    chosen = torch.tensor([5, 1, 8])
    positives = [
        torch.cat([at, labels[i].unsqueeze(1)], dim=1)
        for at, i in zip(places, (chosen[:2], chosen[2:]))
    ]
    expected = loss(s[chosen], t[chosen], labels[chosen])
    torch.testing.assert_close(loss(*maps, positives), expected)
    with pytest.raises(ValueError, match="found tensors for t_emb alone"):
        loss(maps[0], t, positives)
    with pytest.raises(ValueError, match=r"same grids, found .*\[1, 2, 3\].* and .*\[1, 2, 2\]"):
        loss(maps[0], [maps[1][0][..., :2], maps[1][1]], positives)
