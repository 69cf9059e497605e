"""Everything that is wrong with a data set is found, with its place and number."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made
import mmcv
import numpy as np
import pytest

from kd_det.datasets import looks
from kd_det.datasets.coco_entries import check_annotations
from kd_det.datasets.faults import ERROR, REPAIRED, WARNING, Fault
from kd_det.datasets.formats import read_set
from kd_det.datasets.inspection import Inspection, inspect
from kd_det.datasets.writing import write_set

Edit = Callable[[dict[str, Any], Path], object]


def enough(data: dict[str, Any]) -> None:
    """Ten boxes of each class, so that none is rare."""
    for i in range(20):
        data["annotations"].append(
            dict(
                id=100 + i, image_id=1, category_id=1 + i % 2, bbox=[i, 0, 5, 5], area=25, iscrowd=0
            )
        )


@pytest.fixture
def spoilt(tmp_path: Path) -> Callable[..., Inspection]:
    """Inspects a valid COCO folder after an edit of its training annotations and of its files."""
    root = tmp_path / "data"

    def inspected(edit: Edit = lambda data, root: None, **options: Any) -> Inspection:
        for split, names in (("train", "abc"), ("val", "de")):
            made.pictures(root / split, names)
            data = made.coco(names)
            if split == "train":
                enough(data)
                edit(data, root)
            made.write_coco(root / "annotations" / f"instances_{split}.json", data)
        return inspect(read_set(root), **options)

    return inspected


def each(kind: str, change: Callable[[dict[str, Any]], object]) -> Edit:
    return lambda data, root: [change(entry) for entry in data[kind]]


def first(kind: str, **values: Any) -> Edit:
    return lambda data, root: data[kind][0].update(values)


def cut(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def test_a_valid_set_has_no_faults(spoilt):
    found = spoilt()
    assert found.faults == [] and found.classes == ("apple", "pear")
    train = found.parts["train"]
    assert (train.images, train.boxes, train.empty, train.most) == (3, 23, 1, 22)
    assert train.by_class == {"apple": 11, "pear": 12}
    assert train.images_by_class == {"apple": 1, "pear": 2}
    assert train.widths == (40, 40, 40) and train.heights == (20, 20, 20)
    json.dumps(found.as_dict())


@pytest.mark.parametrize(
    ("edit", "severity", "said", "items"),
    [
        (lambda d, root: (root / "train/b.jpg").unlink(), ERROR, "1 of 3 images are missing in ",
         ("b.jpg",)),
        (lambda d, root: made.write(root / "train/b.jpg", "no image"), ERROR,
         "1 of 3 images failed to load", None),
        (lambda d, root: made.write(root / "train/b.jpg", ""), ERROR, "failed to load", None),
        (lambda d, root: made.picture(root / "train/b.jpg", 7, (30, 20)), WARNING,
         "have another size than the annotations say", ("b.jpg: 40x20, not 30x20",)),
        (lambda d, root: shutil.copy(root / "train/a.jpg", root / "val/d.jpg"), WARNING,
         "are the same file in both", None),
        (lambda d, root: shutil.copy(root / "train/a.jpg", root / "train/c.jpg"), WARNING,
         "are there several times under different names", None),
        (first("annotations", bbox=[4, 4, 0, 0]), WARNING, "less than a pixel of width or height",
         ("a.jpg: id 1, [4, 4, 0, 0]",)),
        (first("annotations", bbox=[12, 14, -10, -10]), WARNING, "less than a pixel", None),
        (first("annotations", bbox=[50, 4, 9, 9]), WARNING, "boxes lie outside their image",
         ("a.jpg: id 1, [50, 4, 9, 9]",)),
        (first("annotations", bbox=[30, 4, 20, 9]), WARNING, "boxes end outside their image", None),
        (lambda d, root: d["annotations"].append(dict(d["annotations"][0], id=99)), WARNING,
         "are there several times, in the same image and class", ("a.jpg: [2, 4, 10, 10]",)),
        (first("images", id=2), ERROR, "images have an id that another one has before them",
         ("b.jpg, id 2",)),
        (first("annotations", image_id=77), ERROR, "have an unknown image_id",
         ("id 1, image_id 77",)),
        (first("annotations", category_id=77), ERROR, "have an unknown category_id", None),
        (first("annotations", bbox=[1, 2, 3]), ERROR, "have no 'bbox' of four numbers", None),
        (first("annotations", bbox=[0, 0, math.inf, 4]), ERROR, "have no 'bbox' of four", None),
        (first("annotations", area=math.nan), REPAIRED, "1 area, as width x height", None),
        (first("images", width=math.inf), REPAIRED, "1 width and height from the images", None),
        (first("categories", name=None), ERROR, "categories have no 'name'", None),
        (each("annotations", lambda a: a.update(category_id=str(a["category_id"]))), REPAIRED,
         "23 category_id of annotations from text to numbers", None),
        (each("annotations", lambda a: a.pop("area")), REPAIRED,
         "23 area, as width x height", None),
        (each("annotations", lambda a: a.pop("iscrowd")), REPAIRED, "23 iscrowd, as 0", None),
        (each("images", lambda i: i.pop("width")), REPAIRED,
         "3 width and height from the images", None),
        (lambda d, root: d["categories"].append(dict(id=3, name="plum")), WARNING,
         "1 of 3 classes have no box to learn from", ("plum",)),
    ],
)  # fmt: skip
def test_each_fault_is_found_with_its_place(spoilt, edit, severity, said, items):
    def spoil(data: dict[str, Any], root: Path) -> None:
        (root / "val").mkdir(parents=True, exist_ok=True)
        edit(data, root)

    found = spoilt(spoil)
    faults = [fault for fault in found.faults if said in fault.what]
    if said == "are the same file in both":  # the fixture writes val after the edit
        shutil.copy(found.root / "train/a.jpg", found.root / "val/d.jpg")
        faults = [f for f in inspect(read_set(found.root)).faults if said in f.what]
    assert [fault.severity for fault in faults] == [severity]
    assert items is None or faults[0].items == items
    assert bool(found.errors) == (severity == ERROR)


def test_a_photograph_that_was_cut_off_is_found(spoilt):
    """OpenCV 5 reads nothing of it, and OpenCV 4 a part."""
    found = spoilt()
    made.picture(found.root / "train/b.jpg", 1, (400, 200))
    cut(found.root / "train/b.jpg")
    is_read = mmcv.imread(str(found.root / "train/b.jpg")) is not None
    fault, *_ = inspect(read_set(found.root)).faults
    assert "cut off" in fault.what and Path(fault.items[0]).name == "b.jpg"
    assert fault.severity == (WARNING if is_read else ERROR)


def test_faults_of_a_test_part_keep_nobody_from_training(spoilt):
    root = spoilt().root
    made.write_coco(root / "annotations" / "instances_test.json", made.coco("f"))
    found = inspect(read_set(root))
    (fault,) = found.faults
    assert not found.errors and "1 of 1 images are missing" in fault.what
    # COCO's own test set has no annotations at all.
    made.write(root / "annotations" / "instances_test.json", '{"images": [], "categories": []}')
    assert set(inspect(read_set(root)).parts) == {"train", "val"}


def test_all_faults_are_told_at_once(spoilt):
    def spoil(data: dict[str, Any], root: Path) -> None:
        (root / "train/b.jpg").unlink()
        made.write(root / "train/c.jpg", "no image")
        data["annotations"][0]["category_id"] = 77
        data["annotations"][1]["image_id"] = 88
        data["annotations"][3]["bbox"] = [0, 0, 0, 4]
        data["images"].append(dict(data["images"][0], file_name="other.jpg"))
        del data["annotations"][4]["area"]

    found = spoilt(spoil)
    assert [f.severity for f in found.errors] == [ERROR] * 5
    assert {f.severity for f in found.faults} == {ERROR, WARNING, REPAIRED}
    assert found.faults == sorted(
        found.faults, key=lambda f: [ERROR, WARNING, REPAIRED].index(f.severity)
    )
    assert all(isinstance(fault, Fault) and fault.count for fault in found.faults)


@pytest.mark.parametrize(
    ("kind", "said"), [("images", "no images"), ("categories", "no categories")]
)
def test_a_file_without_entries_is_told(spoilt, kind, said):
    found = spoilt(lambda data, root: data[kind].clear())
    assert any(said in fault.sentence for fault in found.errors)


def test_orientation_is_as_mmcv_reads_it_and_boxes_tell_which_is_meant(spoilt):
    """A photograph stored as 40 x 20, shown as 20 x 40."""
    found = spoilt()
    made.turned(found.root / "train/b.jpg", (40, 20))
    found = inspect(read_set(found.root))
    assert mmcv.imread(str(found.root / "train/b.jpg")).shape == (40, 20, 3)
    (fault,) = found.faults
    assert "1 of 3 images are turned by mmcv, for their EXIF orientation" in fault.what
    # Its box goes from x 10 to 30, and the upright image is 20 wide.
    assert "boxes of 1 do not fit the turned image" in fault.what
    made.turned(found.root / "train/c.jpg", (20, 40))  # upright as 40 x 20: as the file says
    assert len(inspect(read_set(found.root)).faults) == 1


def test_what_a_detector_cannot_see_depends_on_the_scale(spoilt):
    edit = first("annotations", bbox=[1, 1, 3, 3])
    # 40 x 20 pixels are resized to 80 x 40, and 3 to 6.
    assert spoilt(edit, scale=(80, 40)).parts["train"].tiny == {8: 1, 4: 0}
    assert spoilt(edit).parts["train"].tiny == {8: 0, 4: 0}


def test_images_are_looked_at_once_while_they_stay_the_same(spoilt, tmp_path, monkeypatch):
    looked: list[str] = []
    own = looks.look_at
    monkeypatch.setattr(looks, "look_at", lambda path: looked.append(path) or own(path))
    kept = tmp_path / "work" / "images.json"
    found = spoilt(kept=kept)
    assert len(looked) == 5
    again = inspect(read_set(found.root), kept=kept)
    assert len(looked) == 5 and again.as_dict() == found.as_dict()
    cut(found.root / "val" / "d.jpg", 0.9)
    fault, *_ = inspect(read_set(found.root), kept=kept).faults
    assert len(looked) == 10 and "cut off" in fault.what
    kept.write_text('{"digest": ')
    inspect(read_set(found.root), kept=kept)
    assert len(looked) == 15


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif"])
@pytest.mark.parametrize("share", [1, 0.5, 0])
def test_a_look_agrees_with_mmcv(tmp_path, suffix, share):
    path = tmp_path / f"a{suffix}"
    made.picture(path, 3, (64, 48))
    cut(path, share)
    look = looks.look_at(str(path))
    try:
        image = mmcv.imread(str(path))
    except Exception:
        image = None
    assert (look.fault == looks.UNREADABLE) == (image is None)
    if image is not None:
        assert (look.height, look.width) == image.shape[:2]
    assert (look.fault == "") == (share == 1)


def test_written_files_are_what_training_reads(tmp_path):
    root = tmp_path / "data"
    made.pictures(root, made.ALL)
    for name in made.ALL:
        made.write(root / f"{name}.xml", made.xml(name))
    found = read_set(root, val_split=0.34, seed=1)
    inspection = inspect(found)
    work = tmp_path / "work"
    written = write_set(found, inspection, work)
    names = json.loads((work / "split.json").read_text())
    assert names["seed"] == 1 and len(names["val"]) == 2
    for split, entries in written.items():
        checked = check_annotations(entries.path, root, evaluated=split == "val")
        assert checked.repairs == [] and checked.warnings == []
        assert entries.path.parent == work and entries.data == checked.data
    val = json.loads(written["val"].path.read_text())
    assert [i["file_name"] for i in val["images"]] == names["val"]
    assert val["info"]["converted_from"] == "Pascal VOC (6 .xml files)"


def test_a_valid_file_is_read_where_it_is(spoilt, tmp_path):
    found = spoilt()
    written = write_set(read_set(found.root), found, tmp_path / "work")
    assert written["train"].path == found.root / "annotations/instances_train.json"
    assert not (tmp_path / "work").exists()


def test_a_thousand_images_take_seconds(tmp_path):
    """The pictures are of a photograph's size."""
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    image = mmcv.imresize(noise, (640, 480))
    for i in range(40):
        mmcv.imwrite(image, str(tmp_path / f"{i}.jpg"))
    import time

    start = time.monotonic()
    found = looks.look_at_all([str(tmp_path / f"{i}.jpg") for i in range(40)])
    assert all(look.width == 640 for look in found.values())
    assert time.monotonic() - start < 4  # 100 seconds for a thousand, on the slowest machine
