"""COCO: one .json file for a part or for all, wherever it lies and whatever it is called."""

from __future__ import annotations

import posixpath
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from kd_det.datasets.coco import KEYS, DataError, describe_encoding, find_roots, parse
from kd_det.datasets.formats.detection_set import Entry, Part, Reading
from kd_det.datasets.formats.tree import Tree, few, split_of, split_of_folder

# Usual places, tried before any other: Roboflow's, then COCO's own and those of plain names.
ROBOFLOW = "_annotations.coco.json"
USUAL = tuple(
    f"annotations/{prefix}{name}.json"
    for prefix in ("instances_", "")
    for name in ("train2017", "train", "val2017", "val", "valid", "test2017", "test")
)
# Other tasks of COCO, whose files stand beside those of detection.
OTHER_TASKS = ("captions", "person_keypoints", "stuff", "panoptic", "image_info")


def find(tree: Tree) -> str | None:
    """An annotation file in COCO's format."""
    files = tree.with_suffix(".json")
    usual = [f for f in files if posixpath.basename(f) == ROBOFLOW or f in USUAL]
    return next(iter(usual), None) or next((f for f in files if _looks_like_coco(tree, f)), None)


def read(
    tree: Tree, named: Mapping[str, str], images: str | None = None, divided: bool = False
) -> Reading:
    """Read a folder with annotations in COCO's format.

    Args:
        tree: Its files.
        named: Annotation files by part that the user named, relative to the root or absolute.
        images: The folder of images, if the user named it.
        divided: Whether the user wants what has no validation part to be divided.

    Raises:
        DataError: If there are several files for a part, or a file is not valid.
    """
    notes: list[str] = []
    files = dict(named) or _choose(tree, notes, divided)
    parts = []
    for split, path in files.items():
        raw = (tree.root / path).read_bytes()
        encoding = describe_encoding(raw)
        data = parse(tree.root / path, raw, KEYS)
        part = Part(split or None, path, data, converted=bool(encoding))
        if encoding:
            notes.append(f"{path}: {encoding}")
        _find_images(part, tree, images, notes)
        parts += _by_folder(part) if not split else [part]
    _remove_roots(parts, notes)
    _align_classes(parts, notes)
    return Reading(f"COCO ({', '.join(files.values())})", parts, notes)


def _choose(tree: Tree, notes: list[str], divided: bool) -> dict[str, str]:
    """The annotation files by part; by ``''`` if one is for all.

    Raises:
        DataError: If there are several for a part, or it is unclear which one is for validation.
    """
    files = [f for f in tree.with_suffix(".json") if not f.lower().endswith(".createml.json")]
    chosen: dict[str, str] = {}
    tiers = (
        [f for f in files if posixpath.basename(f) == ROBOFLOW],
        [f for f in files if f in USUAL],
        files,
    )
    for tier in tiers:
        if {"train", "val"} <= chosen.keys():
            break
        others = [f for f in tier if f not in chosen.values()]
        # A test set of COCO's server has no annotations.
        others = [f for f in others if split_of(f) != "test" or _looks_like_coco(tree, f)]
        if tier is files:
            others = [f for f in others if _looks_like_coco(tree, f)]
            others = [f for f in others if not _is_other_task(f)] or others
        by_split = defaultdict(list)
        for path in others:
            by_split[split_of(path) or ""].append(path)
        for split, paths in by_split.items():
            if split in chosen or (not split and (chosen or len(by_split) > 1)):
                continue
            if len(paths) > 1:
                option = f"--{'val' if split in ('val', 'test') else 'train'}-ann"
                raise DataError(
                    f"{tree.root} has several annotation files for "
                    f"{split or 'all of the images'}: {few(paths, 6)}; leave one, or name it with "
                    f"{option}"
                )
            chosen[split] = paths[0]
    if "" in chosen and len(chosen) > 1:
        del chosen[""]
    unused = [f for f in files if f not in chosen.values() and _is_unnamed(tree, f)]
    if unused and "train" in chosen and not chosen.keys() & {"val", "test"} and not divided:
        raise DataError(
            f"{tree.root} has no annotation file for val: found {chosen['train']} for train, and "
            f"{few(unused)}, whose name says no part. Name it with --val-ann, or divide the "
            "training images with --val-split 0.2"
        )
    if not chosen.keys() & {"train", ""}:
        raise DataError(
            f"{tree.root} has no annotation file for train: found "
            f"{few([*chosen.values(), *unused], 6)}. Name it with --train-ann"
        )
    if unused:
        notes.append(f"not read: {few(unused)}")
    return {split: chosen[split] for split in ("train", "val", "test", "") if split in chosen}


def _is_unnamed(tree: Tree, path: str) -> bool:
    return not split_of(path) and not _is_other_task(path) and _looks_like_coco(tree, path)


def _is_other_task(path: str) -> bool:
    return posixpath.basename(path).startswith(OTHER_TASKS)


def _looks_like_coco(tree: Tree, path: str) -> bool:
    """Whether a file has the keys of COCO's format, without parsing it."""
    with open(tree.root / path, "rb") as file:
        start = file.read(1 << 16)
        if b'"shapes"' in start and b'"categories"' not in start:
            return False  # LabelMe's, of which there may be thousands
        content = (start + file.read()).replace(b"\0", b"")  # of UTF-16
    return all(f'"{key}"'.encode() in content for key in KEYS)


def _find_images(part: Part, tree: Tree, named: str | None, notes: list[str]) -> None:
    """Set the folder that ``file_name`` is relative to, or else each ``file_name``.

    Images that are not found keep their name.
    """
    names = [i["file_name"] for i in part.data["images"] if isinstance(i.get("file_name"), str)]
    part.images = named if named is not None else _best_folder(names, part, tree)
    lost = [n for n in names if not _is_at(tree, part.images, n)]
    if not lost:
        return
    own = posixpath.dirname(part.source)
    near = list(dict.fromkeys([part.images, own, posixpath.join(own, "images"), "images", ""]))
    found = {name: tree.find_image(name, near, part.split) for name in lost}
    recovered = {name: path for name, path in found.items() if path is not None}
    if not recovered:
        if len(lost) == len(names) and part.split != "test":
            raise DataError(
                f"{part.source} names {len(names)} images, and none of them lies in {tree.root} "
                f"({few(names)}); put them there, or name their folder with --images"
            )
        return
    for image in part.data["images"]:
        name = image.get("file_name")
        if isinstance(name, str):
            kept = posixpath.join(part.images, name) if name not in found else name
            image["file_name"] = recovered.get(name, kept)
    part.images, part.converted = "", True
    first = next(iter(recovered))
    notes.append(
        f"{part.source} names {len(recovered)} images otherwise than they are called here, as "
        f"{first!r} for {recovered[first]}"
    )


def _is_at(tree: Tree, folder: str, name: str) -> bool:
    path = posixpath.normpath(posixpath.join(folder, name))
    return path in tree.files or (posixpath.isabs(path) and (tree.root / path).is_file())


def _best_folder(names: Sequence[str], part: Part, tree: Tree) -> str:
    """The folder in which most images lie; folders of another part count only without them."""
    by_name = defaultdict(list)
    for path in tree.images:
        by_name[posixpath.basename(path)].append(path)
    counts: Counter[str] = Counter()
    for name in names:
        plain = posixpath.normpath(name)
        for path in by_name[posixpath.basename(plain)]:
            if path == plain or path.endswith(f"/{plain}"):
                counts[path[: len(path) - len(plain)].rstrip("/")] += 1
    own = posixpath.dirname(part.source)

    def rank(folder: str) -> tuple[Any, ...]:
        split = split_of(f"{folder}/") if folder else None
        is_other = part.split is not None and split not in (None, part.split)
        return (is_other, -counts[folder], split != part.split, folder != own, len(folder))

    return min(counts, key=rank, default=own)


def _by_folder(part: Part) -> list[Part]:
    """The parts of a file for all, if the folders of its images name them."""
    by_split: dict[str, list[Entry]] = defaultdict(list)
    for image in part.data["images"]:
        path = posixpath.join(part.images, str(image.get("file_name")))
        by_split[split_of_folder(path) or ""].append(image)
    if "train" not in by_split or "" in by_split or len(by_split) < 2:
        return [part]
    return [part.select(split, images) for split, images in by_split.items()]


def _remove_roots(parts: Sequence[Part], notes: list[str]) -> None:
    """Remove categories that only group the classes, and have no objects in any part."""
    used = {str(a.get("category_id")) for part in parts for a in part.data["annotations"]}
    removed: dict[str, None] = {}
    for part in parts:
        categories = part.data["categories"]
        roots = find_roots(categories, used)
        if roots:
            part.data = {**part.data, "categories": [c for c in categories if c not in roots]}
            part.converted = True
            removed.update((str(c["name"]), None) for c in roots)
    if removed:
        notes.append(f"categories that only group classes are left out: {', '.join(removed)}")


def _align_classes(parts: Sequence[Part], notes: list[str]) -> None:
    """Give all parts the classes of the first, in its order: that of the labels.

    Labelling tools assign class ids per export, in order of first occurrence.

    Raises:
        DataError: If another part has objects of a class that the first has not.
    """
    expected = _names(parts[0])
    is_named = all(c.get("name") is not None for c in parts[0].data["categories"])
    if not expected or not is_named or len(set(expected)) < len(expected):
        return  # told by the check of entries
    for part in parts[1:]:
        names = _names(part)
        if names == expected:
            continue
        categories = part.data["categories"]
        used = {str(a.get("category_id")) for a in part.data["annotations"]}
        unknown = [
            name
            for name, c in zip(names, categories)
            if name not in expected and str(c.get("id")) in used
        ]
        if unknown:
            raise DataError(
                f"all parts need the same classes, found {few(unknown)} in {part.source} and not "
                f"in {parts[0].source}, which has {few(expected, 10)}; spell them alike"
            )
        by_name = dict(zip(names, categories))
        free = 1 + max((c["id"] for c in categories if isinstance(c.get("id"), int)), default=0)
        added = ({**c, "id": free + i} for i, c in enumerate(parts[0].data["categories"]))
        aligned = [by_name.get(name, c) for name, c in zip(expected, added)]
        part.data, part.converted = {**part.data, "categories": aligned}, True
        notes.append(f"the classes of {part.source} are put in the order of {parts[0].source}")


def _names(part: Part) -> list[str]:
    return [str(category.get("name")) for category in part.data["categories"]]
