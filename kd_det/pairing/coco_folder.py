"""Find annotations and images in a folder of COCO-format data."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from kd_det.datasets.coco import Annotations, DataError, split_categories
from kd_det.datasets.coco_entries import check_annotations

# What the two parts are called, and where their annotations lie: COCO's own layout, that of
# digits-coco, plain names, and Roboflow's export.
NAMES = {"train": ("train2017", "train"), "val": ("val2017", "val", "valid")}
ANNOTATIONS = (
    "annotations/instances_{}.json",
    "annotations/{}.json",
    "{}/_annotations.coco.json",
)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
IMAGES = ("{}", "images/{}", "images", "")


@dataclass(frozen=True)
class Part:
    """One part of a data set: annotation file and image folder in the root, and what was found."""

    annotations: str
    images: str
    found: Annotations

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.found.data["images"])


@dataclass(frozen=True)
class CocoFolder:
    """A folder with training and validation data, and categories that only group classes."""

    root: Path
    train: Part
    val: Part
    groups: tuple[str, ...] = ()


def find_coco_folder(root: Path) -> CocoFolder:
    """Annotations and images of both parts of ``root``, by the names that are usual.

    Raises:
        NotADirectoryError: If there is no such folder.
        DataError: If a part is absent or there are several; lists what was looked for and what is
            there. If the parts have different classes, or a file is not valid.
    """
    if not root.is_dir():
        raise NotADirectoryError(
            f"expected a folder of data in COCO format or a config of mmdet, found no {root}"
        )
    files = {part: _find_annotations(root, part) for part in NAMES}
    parts = {part: _read_part(root, part, name, file) for part, (name, file) in files.items()}
    train, val = (split_categories(parts[part].found.data) for part in NAMES)
    if train[0] != val[0]:
        raise DataError(
            "both parts need the same categories in the same order, found "
            f"{list(train[0])} in {parts['train'].found.path} and {list(val[0])} "
            f"in {parts['val'].found.path}"
        )
    return CocoFolder(root, parts["train"], parts["val"], train[1] or val[1])


def _find_annotations(root: Path, part: str) -> tuple[str, str]:
    """Name of a part and its annotation file."""
    looked = {pattern.format(name): name for name in NAMES[part] for pattern in ANNOTATIONS}
    found = [file for file in looked if (root / file).is_file()]
    if len(found) == 1:
        return looked[found[0]], found[0]
    if found:
        raise DataError(
            f"{root} has several annotation files for {part}: {', '.join(found)}; leave one, or "
            "give a config of mmdet that names it as --data"
        )
    there = sorted(str(f.relative_to(root)) for f in root.glob("**/*.json"))
    if not there:
        raise DataError(
            f"{root} has no annotation file for {part}, and no .json file; {_contents(root)}. "
            f"Expected COCO format, one of {', '.join(looked)}; convert the annotations, or give a "
            "config of mmdet as --data"
        )
    more = f" and {len(there) - 12} more" if len(there) > 12 else ""
    raise DataError(
        f"{root} has no annotation file for {part}: looked for {', '.join(looked)}; found "
        f"{', '.join(there[:12])}{more}. Rename it, or give a config of mmdet as --data"
    )


def _contents(root: Path) -> str:
    """The likely format of a folder without .json files, in words."""
    counts = Counter(path.suffix.lower() for path in root.rglob("*") if path.is_file())
    if counts[".yaml"] + counts[".yml"] and counts[".txt"]:
        return "it looks like YOLO's format (a .yaml file and labels as .txt)"
    if counts[".xml"]:
        return f"it looks like Pascal VOC's format ({counts['.xml']} .xml files)"
    if counts[".zip"] and not sum(counts[suffix] for suffix in IMAGE_SUFFIXES):
        return "there is a .zip file in it, which has to be unpacked"
    if number := sum(counts[suffix] for suffix in IMAGE_SUFFIXES):
        return f"found {number} images without annotations"
    return f"found {sum(counts.values())} files of other kinds" if counts else "it is empty"


def _read_part(root: Path, part: str, name: str, file: str) -> Part:
    """A part whose annotation file and name are known."""
    folders = {root / pattern.format(name): pattern.format(name) for pattern in IMAGES}
    found = check_annotations(root / file, list(folders), evaluated=part == "val")
    return Part(file, folders[found.images], found)
