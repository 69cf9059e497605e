"""CVAT's own format for images: one annotations.xml for all."""

from __future__ import annotations

from xml.etree import ElementTree

from kd_det.datasets.coco import DataError
from kd_det.datasets.formats import voc
from kd_det.datasets.formats.detection_set import Box, Labelled, Reading, box_around, build_parts
from kd_det.datasets.formats.tree import Tree, split_of, split_of_folder


def find(tree: Tree) -> str | None:
    """The annotation file of a folder in CVAT's format."""
    for path in tree.with_suffix(".xml")[:20]:
        if voc.root_name(tree.root / path) == "annotations":
            return path
    return None


def read(tree: Tree, source: str, images: str | None = None) -> Reading:
    """Read a folder in CVAT's format.

    Args:
        tree: Its files.
        source: The annotation file.
        images: The folder of images, if the user named it.

    Raises:
        DataError: If it is not valid, is of a video, or none of its images is there.
    """
    try:
        root = ElementTree.parse(tree.root / source).getroot()
    except ElementTree.ParseError as error:
        raise DataError(f"{tree.root / source} is not valid XML: {error}") from error
    if root.find("image") is None:
        raise DataError(
            f"{tree.root / source} has no images"
            + (", but tracks of a video" if root.find("track") is not None else "")
            + "; export the task from CVAT as 'COCO 1.0' with images"
        )
    folders = [*([] if images is None else [images]), "images", ""]
    found, missing = [], 0
    for image in root.iterfind("image"):
        name = image.get("name", "")
        path = tree.find_image(name, folders)
        missing += path is None
        split = split_of(image.get("subset") or "") or split_of_folder(path or name)
        size = (int(float(image.get("width", 0))), int(float(image.get("height", 0))))
        labelled = Labelled(path or name, split, size if min(size) > 0 else None)
        for shape in image:
            box = _box(shape)
            if box is not None:
                labelled.boxes.append(box)
        found.append(labelled)
    if missing == len(found):
        raise DataError(
            f"{tree.root / source} names {len(found)} images, and none is in {tree.root}; export "
            "them with the annotations, or name their folder with --images"
        )
    names = [e.text or "" for e in root.iterfind("meta//labels/label/name")]
    used = {box.name for image in found for box in image.boxes}
    classes = [n for n in dict.fromkeys(names) if n] or sorted(used)
    classes += sorted(used - set(classes))
    return Reading(f"CVAT for images ({source})", build_parts(found, classes, source))


def _box(shape: ElementTree.Element) -> Box | None:
    """The object of a box or polygon; None for other shapes."""
    label = shape.get("label", "")
    if shape.tag == "box":
        corners = [float(shape.get(key, 0)) for key in ("xtl", "ytl", "xbr", "ybr")]
        return Box(label, corners)
    if shape.tag == "polygon":
        points = [float(v) for p in shape.get("points", "").split(";") for v in p.split(",")]
        return Box(label, box_around(points), [points])
    return None
