"""The same small data set in every format: six images, three of them with boxes of two classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

SIZE = (40, 20)  # width, height
CLASSES = ["apple", "pear"]
# Boxes by image: class and corners in pixels.
BOXES: dict[str, list[tuple[str, tuple[float, float, float, float]]]] = {
    "a": [("apple", (2, 4, 12, 14)), ("pear", (20, 0, 40, 20))],
    "b": [("pear", (10, 5, 30, 15))],
    "c": [],
    "d": [("apple", (0, 0, 8, 8)), ("pear", (4, 4, 20, 18))],
    "e": [("apple", (6, 2, 16, 12))],
    "f": [],
}
SPLIT = {"train": "abc", "val": "de", "test": "f"}
ALL = "abcdef"


def picture(path: Path, number: int = 0, size: tuple[int, int] = SIZE) -> None:
    """An image file of noise, another for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), np.uint8)
    suffix = path.suffix.lower() if path.suffix else ".jpg"
    path.write_bytes(cv2.imencode(suffix, noise)[1].tobytes())


def pictures(folder: Path, names: str, suffix: str = ".jpg", form: str = "{}") -> None:
    for name in names:
        picture(folder / f"{form.format(name)}{suffix}", ALL.index(name))


def turned(path: Path, size: tuple[int, int], orientation: int = 6) -> None:
    """A photograph that is stored on its side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, "red").save(path, exif=exif)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def coco(names: str, form: str = "{}.jpg", first: int = 1, classes: Any = None) -> dict[str, Any]:
    """Entries of COCO's format; file names by ``form``."""
    classes = classes or CLASSES
    images, annotations = [], []
    for i, name in enumerate(names, first):
        images.append(dict(id=i, file_name=form.format(name), width=SIZE[0], height=SIZE[1]))
        for label, (x1, y1, x2, y2) in BOXES[name]:
            annotations.append(
                dict(
                    id=len(annotations) + 1, image_id=i, category_id=first + classes.index(label),
                    bbox=[x1, y1, x2 - x1, y2 - y1], area=(x2 - x1) * (y2 - y1), iscrowd=0,
                )
            )  # fmt: skip
    categories = [dict(id=i, name=name) for i, name in enumerate(classes, first)]
    return dict(images=images, annotations=annotations, categories=categories)


def write_coco(path: Path, data: dict[str, Any]) -> None:
    write(path, json.dumps(data))


def yolo_line(label: str, corners: tuple[float, ...], segment: bool = False) -> str:
    width, height = SIZE
    x1, y1, x2, y2 = corners
    number = CLASSES.index(label)
    if segment:
        points = (x1, y1, x2, y1, x2, y2, x1, y2)
        values = [v / (height if i % 2 else width) for i, v in enumerate(points)]
    else:
        values = [
            (x1 + x2) / 2 / width,
            (y1 + y2) / 2 / height,
            (x2 - x1) / width,
            (y2 - y1) / height,
        ]
    return f"{number} " + " ".join(f"{v:.6f}" for v in values)


def labels(folder: Path, names: str, segment: bool = False, background: bool = True) -> None:
    """YOLO's label files; those of images without objects are empty, or absent."""
    for name in names:
        if BOXES[name] or background:
            write(
                folder / f"{name}.txt", "\n".join(yolo_line(*box, segment) for box in BOXES[name])
            )


def xml(name: str, filename: str | None = None, path: str = "", size: tuple = SIZE) -> str:
    """Pascal VOC's annotation of an image."""
    objects = "".join(
        f"<object><name>{label}</name><difficult>0</difficult><bndbox>"
        + "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), corners))
        + "</bndbox></object>"
        for label, corners in BOXES[name]
    )
    filename = f"{name}.jpg" if filename is None else filename
    return (
        f"<annotation><filename>{filename}</filename><path>{path}</path><size><width>{size[0]}"
        f"</width><height>{size[1]}</height></size>{objects}</annotation>"
    )


def labelme(name: str, polygon: bool = False) -> str:
    """LabelMe's annotation of an image, as on Windows."""
    shapes = []
    for label, (x1, y1, x2, y2) in BOXES[name]:
        points = [[x1, y1], [x2, y1], [x2, y2], [x1, y2]] if polygon else [[x2, y2], [x1, y1]]
        kind = "polygon" if polygon else "rectangle"
        shapes.append(dict(label=label, points=points, shape_type=kind))
    return json.dumps(
        dict(
            version="5.4.1", flags={}, shapes=shapes, imagePath=f"..\\photos\\{name}.jpg",
            imageData=None, imageHeight=SIZE[1], imageWidth=SIZE[0],
        )
    )  # fmt: skip


def cvat(names: str) -> str:
    """CVAT's annotations.xml."""
    images = ""
    for i, name in enumerate(names):
        shapes = "".join(
            f'<box label="{label}" xtl="{c[0]}" ytl="{c[1]}" xbr="{c[2]}" ybr="{c[3]}"/>'
            for label, c in BOXES[name]
        )
        images += f'<image id="{i}" name="{name}.jpg" width="40" height="20">{shapes}</image>'
    known = "".join(f"<label><name>{name}</name></label>" for name in CLASSES)
    return f"<annotations><meta><task><labels>{known}</labels></task></meta>{images}</annotations>"
