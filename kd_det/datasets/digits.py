"""scikit-learn's handwritten digits, for classification."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from mmengine.dataset import BaseDataset

from kd_det.errors import InvalidInputError
from kd_det.registry import DATASETS

CLASSES = tuple("0123456789")
SPLITS = ("train", "test")
SPLIT_SEED = 0


@DATASETS.register_module()
class Digits(BaseDataset):
    """1797 images of 8 x 8 pixels that come with scikit-learn (extra ``demo``).

    Nothing is read from disk. Each item is an image ``[8, 8, 3]``, uint8, three times the same
    grey, and its class. The split is always the same.

    Args:
        split: ``'train'``, the first ``train_per_class`` of each class in a fixed random order,
            or ``'test'``, all others.
        train_per_class: Images of each class for training; few, so that there is something to
            learn from a teacher.
        kwargs: As in MMEngine's ``BaseDataset``: ``pipeline``, ``indices``, ...

    Raises:
        ValueError: For an unknown ``split``, or more images than are available.
    """

    METAINFO: ClassVar[dict] = dict(classes=CLASSES)

    def __init__(self, split: str = "train", train_per_class: int = 30, **kwargs: Any) -> None:
        if split not in SPLITS:
            raise InvalidInputError(
                f"Digits: expected split to be one of {SPLITS}, found {split!r}"
            )
        self.split = split
        self.train_per_class = train_per_class
        super().__init__(test_mode=split == "test", **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Image, class and number in scikit-learn's set of each item."""
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        images = (images.reshape(-1, 8, 8, 1) / 16 * 255).round().astype(np.uint8).repeat(3, axis=3)
        order = np.random.RandomState(SPLIT_SEED).permutation(len(labels))
        by_class = [order[labels[order] == label] for label in range(len(CLASSES))]
        smallest = min(map(len, by_class))
        if not 1 <= self.train_per_class < smallest:
            raise InvalidInputError(
                f"Digits: expected train_per_class from 1 to {smallest - 1}, found "
                f"{self.train_per_class}"
            )
        train = np.sort(np.concatenate([some[: self.train_per_class] for some in by_class]))
        test = np.setdiff1d(np.arange(len(labels)), train)
        chosen = train if self.split == "train" else test
        return [dict(img=images[i], gt_label=int(labels[i]), source_idx=int(i)) for i in chosen]
