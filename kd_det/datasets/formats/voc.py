"""Pascal VOC: an .xml file for each image, beside it or in a folder of its own."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from kd_det.datasets.coco import DataError
from kd_det.datasets.faults import WARNING, Fault
from kd_det.datasets.formats.detection_set import Box, Labelled, Reading, build_parts
from kd_det.datasets.formats.text import read_text
from kd_det.datasets.formats.tree import Tree, few, split_of, split_of_folder, stem

# Lists of ImageSets/Main that name parts; the others (cat_train.txt) name objects of a class.
LISTS = {"train": "train", "val": "val", "valid": "val", "test": "test", "trainval": "trainval"}
IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "imgs", "img")


def find(tree: Tree) -> str | None:
    """The first annotation file of a folder in VOC's format."""
    files = tree.with_suffix(".xml")
    for path in files[:20]:
        if root_name(tree.root / path) == "annotation":
            return path
    return None


def root_name(path: Path) -> str | None:
    """Name of the outermost element of an .xml file; None if it is not valid."""
    try:
        for _, element in ElementTree.iterparse(path, events=("start",)):
            return element.tag
    except ElementTree.ParseError:
        pass
    return None


def read(tree: Tree, source: str, images: str | None = None) -> Reading:
    """Read a folder in VOC's format.

    Args:
        tree: Its files.
        source: One of its annotation files, or the folder of those to read.
        images: The folder of images, if the user named it.

    Raises:
        DataError: If the images of all annotations are missing, or nothing is labelled.
    """
    files = tree.annotations(".xml", source)
    lists = _read_lists(tree)
    faults: dict[str, list[str]] = {}
    found: list[Labelled] = []
    missing = 0
    for path in files:
        try:
            annotation = ElementTree.parse(tree.root / path).getroot()
        except ElementTree.ParseError:
            faults.setdefault("are not valid XML", []).append(path)
            continue
        if annotation.tag != "annotation":
            continue
        split = lists.get(posixpath.basename(stem(path))) if lists else split_of_folder(path)
        if lists and split is None:
            faults.setdefault("are in no list of ImageSets/Main, and are left out", []).append(path)
            continue
        image = _image_of(path, annotation, tree, images, split)
        missing += image is None
        named = (annotation.findtext("filename") or f"{stem(path)}.jpg").strip()
        labelled = Labelled(image or named, split, _size(annotation))
        is_one_based = "The VOC20" in (annotation.findtext("source/database") or "")
        for thing in annotation.iterfind("object"):
            box = _box(thing, is_one_based)
            if box is None:
                faults.setdefault("have objects without a name or a box", []).append(path)
            else:
                labelled.boxes.append(box)
        found.append(labelled)
    broken = faults.get("are not valid XML", ())
    if broken and not found:
        raise DataError(f"no .xml file of {tree.root} is valid XML: {few(broken)}; export it again")
    if not found or missing == len(found):
        raise DataError(
            f"{tree.root} has {len(found)} annotations in VOC's format and none of their images; "
            "put the images beside them or into JPEGImages/, or name their folder with --images"
        )
    classes = sorted({box.name for image in found for box in image.boxes})
    if not classes:
        raise DataError(f"{tree.root} has {len(found)} annotations in VOC's format without objects")
    where = posixpath.dirname(files[0]) if len({posixpath.dirname(f) for f in files}) == 1 else ""
    notes = ["classes are in the order of the alphabet, since no file of VOC's format has another"]
    crowds = sum(box.crowd for image in found for box in image.boxes)
    if crowds:
        notes.append(f"{crowds} objects are marked difficult: neither found nor missed counts")
    return Reading(
        f"Pascal VOC ({len(files)} .xml files)",
        build_parts(found, classes, where or "the .xml files"),
        notes,
        [_fault(what, places) for what, places in faults.items()],
    )


def _read_lists(tree: Tree) -> dict[str, str]:
    """Parts of images by their name without suffix, of ImageSets/Main; empty if it has none."""
    names: dict[str, list[str]] = {}
    for path in tree.with_suffix(".txt"):
        split = LISTS.get(posixpath.basename(stem(path)))
        if split and "/ImageSets/" in f"/{path}":
            lines = read_text(tree.root / path).splitlines()
            names.setdefault(split, []).extend(
                posixpath.basename(stem(w[0]) if w[0].lower().endswith((".jpg", ".png")) else w[0])
                for w in (line.split() for line in lines)
                if w
            )
    # trainval is both together: what only it has is to learn from.
    result = dict.fromkeys(names.get("trainval", ()), "train")
    for split in ("train", "val", "test"):
        result.update(dict.fromkeys(names.get(split, ()), split))
    return result


def _image_of(
    path: str, annotation: ElementTree.Element, tree: Tree, images: str | None, split: str | None
) -> str | None:
    """The image of an annotation: of its own name, else of the name in it."""
    folder, base = posixpath.split(stem(path))
    above = posixpath.dirname(folder)
    folders = [] if images is None else [images]
    folders.append(folder)
    # Annotations/train/a.xml with JPEGImages/train/a.jpg, and annotations/a.xml with images/a.jpg.
    for place, inner in ((above, ""), (posixpath.dirname(above), posixpath.basename(folder))):
        for name in IMAGE_FOLDERS:
            folders.append("/".join(part for part in (place, name, inner) if part))
    folders.append(above)
    split = split or split_of(path)
    own = tree.find_image(f"{base}.jpg", folders, split, any_suffix=True)
    if own is not None:
        return own
    for key in ("filename", "path"):
        name = (annotation.findtext(key) or "").strip()
        found = tree.find_image(name, folders, split, any_suffix=True) if name else None
        if found is not None:
            return found
    return None


def _size(annotation: ElementTree.Element) -> tuple[int, int] | None:
    try:
        width = int(float(annotation.findtext("size/width", "")))
        height = int(float(annotation.findtext("size/height", "")))
    except ValueError:
        return None
    return (width, height) if width > 0 and height > 0 else None


def _box(thing: ElementTree.Element, is_one_based: bool) -> Box | None:
    name = (thing.findtext("name") or "").strip()
    try:
        x1, y1, x2, y2 = (
            float(thing.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax")
        )
    except ValueError:
        return None
    if not name:
        return None
    if is_one_based:  # the challenge's own files count pixels from 1, up to and including the last
        x1, y1 = x1 - 1, y1 - 1
    return Box(name, (x1, y1, x2, y2), crowd=(thing.findtext("difficult") or "0").strip() == "1")


def _fault(what: str, places: Sequence[str]) -> Fault:
    left_out = what.startswith("are in no list")
    return Fault(
        "VOC",
        f"{len(places)} .xml files {what}",
        len(places),
        tuple(places),
        "add them to train.txt or val.txt to use them" if left_out else "correct or remove them",
        *([WARNING] if left_out else []),
    )
