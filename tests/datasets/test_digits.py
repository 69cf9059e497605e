"""scikit-learn's digits: the same split everywhere, nothing shared between its parts."""

from __future__ import annotations

import numpy as np
import pytest

from kd_det.datasets import Digits


def items(**options: object) -> list[dict]:
    dataset = Digits(pipeline=[], **options)
    return [dataset[i] for i in range(len(dataset))]


def test_every_image_is_in_one_part_and_a_smaller_part_in_a_larger():
    train, test = items(split="train"), items(split="test")
    ids = [item["source_idx"] for item in train + test]
    assert len(train) == 300 and sorted(ids) == list(range(1797))
    assert np.bincount([item["gt_label"] for item in train]).tolist() == [30] * 10
    few = {item["source_idx"] for item in items(train_per_class=5)}
    assert len(few) == 50 and few < {item["source_idx"] for item in train}


def test_items_are_scikit_learns():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    for item in items(split="train", train_per_class=2):
        image = item["img"]
        assert image.shape == (8, 8, 3) and image.dtype == np.uint8
        assert item["gt_label"] == labels[item["source_idx"]]
        grey = images[item["source_idx"]].reshape(8, 8, 1) * 255 / 16
        assert np.abs(image - grey).max() <= 0.5


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(split="val"), r"split to be one of \('train', 'test'\), found 'val'"),
        (dict(train_per_class=0), "from 1 to 173, found 0"),
        (dict(train_per_class=500), "from 1 to 173, found 500"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Digits(pipeline=[], **options)
