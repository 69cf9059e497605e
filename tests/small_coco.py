"""A handful of small images in COCO's form: names, ids, crowds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

HEIGHT, WIDTH = 96, 128
# COCO's category ids have gaps: 1 to 90 without these.
GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


def coco_names() -> tuple[str, ...]:
    from mmdet.datasets import CocoDataset

    return CocoDataset.METAINFO["classes"]


def write_split(root: Path, split: str, images: int) -> dict[str, Any]:
    """Noise with bright boxes; the second image has a crowd, the last one no object."""
    numbers = np.random.default_rng(len(split))
    ids = [i for i in range(1, 91) if i not in GAPS]
    data: dict[str, Any] = dict(images=[], annotations=[])
    data["categories"] = [dict(id=i, name=name) for i, name in zip(ids, coco_names())]
    (root / split).mkdir(parents=True)
    for index in range(images):
        # Portraits too: images are grouped by shape.
        height, width = (HEIGHT, WIDTH) if index % 3 else (WIDTH, HEIGHT)
        image = numbers.integers(0, 128, (height, width, 3), dtype=np.uint8)
        name = f"{index:012d}.jpg"
        # Ids are not positions, as in COCO.
        entry = dict(id=1000 + 7 * index, file_name=name, height=height, width=width)
        data["images"].append(entry)
        for _ in range(3 if index < images - 1 else 0):
            x, y = int(numbers.integers(0, width - 40)), int(numbers.integers(0, height - 40))
            w, h = (int(side) for side in numbers.integers(20, 40, 2))
            image[y : y + h, x : x + w] = numbers.integers(128, 256, 3)
            annotation = dict(
                id=len(data["annotations"]) + 1,
                image_id=entry["id"],
                category_id=int(numbers.choice(ids)),
                bbox=[x, y, w, h],
                area=w * h,
                iscrowd=0,
                segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]],
            )
            data["annotations"].append(annotation)
        cv2.imwrite(str(root / split / name), image)
    crowd = data["annotations"][4]
    crowd.update(iscrowd=1, segmentation=dict(size=[HEIGHT, WIDTH], counts=[HEIGHT * WIDTH]))
    file = root / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(data))
    return data
