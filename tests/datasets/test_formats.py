"""One data set in every format and layout that people have: the same images, boxes and classes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import made
import pytest
from made import ALL, BOXES, CLASSES, SPLIT

from kd_det.datasets.coco import DataError
from kd_det.datasets.formats import DetectionSet, read_set


def boxes_of(found: DetectionSet, split: str) -> dict[str, list[tuple]]:
    """Class and corners of each object, by the stem of its image."""
    data = found.parts[split].data
    names = {c["id"]: c["name"] for c in data["categories"]}
    images = {i["id"]: Path(i["file_name"]).stem for i in data["images"]}
    result: dict[str, list[tuple]] = {stem: [] for stem in images.values()}
    for box in data["annotations"]:
        x, y, w, h = box["bbox"]
        corners = tuple(pytest.approx(v, abs=0.01) for v in (x, y, x + w, y + h))
        result[images[box["image_id"]]].append((names[box["category_id"]], corners))
    return result


def expect(found: DetectionSet, **parts: str) -> None:
    """The images of each part, found on disk, with their boxes."""
    assert set(found.parts) == set(parts)
    for split, names in parts.items():
        assert boxes_of(found, split) == {name: BOXES[name] for name in names}
        part = found.parts[split]
        for image in part.data["images"]:
            assert (found.root / part.images / image["file_name"]).is_file()
        assert found.classes == tuple(CLASSES)
    assert found.faults == []


def coco_standard(root: Path) -> None:
    for split, names in SPLIT.items():
        made.pictures(root / f"{split}2017", names)
        made.write_coco(root / "annotations" / f"instances_{split}2017.json", made.coco(names))
    made.write(
        root / "annotations" / "captions_train2017.json", '{"images": [], "annotations": []}'
    )
    made.write_coco(root / "annotations" / "person_keypoints_train2017.json", made.coco("a"))


def coco_custom(root: Path) -> None:
    for split, names in SPLIT.items():
        made.pictures(root / split, names)
        made.write_coco(root / "labels" / f"custom_{split}.json", made.coco(names, first=0))


def coco_other_order(root: Path) -> None:
    """The classes of the parts are numbered anew, and one has a class without objects."""
    for split, names in SPLIT.items():
        made.pictures(root / split, names)
        classes = CLASSES if split == "train" else [*reversed(CLASSES), "plum"]
        made.write_coco(root / f"{split}.json", made.coco(names, classes=classes))


def roboflow(root: Path) -> None:
    """A root category, a twin of it in name, and a second file in train."""
    for split, names in SPLIT.items():
        folder = root / {"val": "valid"}.get(split, split)
        made.pictures(folder, names)
        data = made.coco(names)
        data["categories"] = [
            dict(id=0, name="apple", supercategory="none"),
            *(dict(c, supercategory="apple") for c in data["categories"]),
        ]
        made.write_coco(folder / "_annotations.coco.json", data)
    made.write_coco(root / "train" / "_train_anno.json", made.coco("a"))
    made.write(root / "README.roboflow.txt", "some words")


def one_file_with_folders(root: Path) -> None:
    data = made.coco(ALL)
    for image in data["images"]:
        split = next(s for s, names in SPLIT.items() if image["file_name"][0] in names)
        made.picture(root / split / image["file_name"], ALL.index(image["file_name"][0]))
        image["file_name"] = f"{split}/{image['file_name']}"
    made.write_coco(root / "annotations.json", data)


def yolo_split_first(root: Path) -> None:
    """Roboflow's: train/images, and paths that begin beside the folder."""
    for split, names in SPLIT.items():
        folder = root / {"val": "valid"}.get(split, split)
        made.pictures(folder / "images", names)
        made.labels(folder / "labels", names)
    made.write(root / "data.yaml", "train: ../train/images\nval: ../valid/images\n"
               "test: ../test/images\nnc: 2\nnames: ['apple', 'pear']\n")  # fmt: skip


def yolo_images_first(root: Path) -> None:
    """Ultralytics': images/train; segments, names as a mapping, background without a file."""
    for split, names in SPLIT.items():
        made.pictures(root / "images" / split, names, ".png")
        made.labels(root / "labels" / split, names, segment=True, background=False)
    made.write(root / "fruit.yml", "path: ../datasets/fruit\ntrain: images/train\nval:\n"
               "  - images/val\ntest: images/test\nnames:\n  0: apple\n  1: pear\n")  # fmt: skip


def yolo_beside(root: Path) -> None:
    for split, names in SPLIT.items():
        made.pictures(root / split, names)
        made.labels(root / split, names)
    made.write(root / "classes.txt", "apple\npear\n")


def yolo_of_another_machine(root: Path) -> None:
    for split, names in SPLIT.items():
        made.pictures(root / "images" / split, names)
        made.labels(root / "labels" / split, names)
    made.write(root / "data.yaml", "train: C:\\Users\\me\\fruit\\images\\train\n"
               "val: C:\\Users\\me\\fruit\\images\\val\ntest: /home/me/fruit/images/test\n"
               "names: [apple, pear]\n")  # fmt: skip


def yolo_lists(root: Path) -> None:
    """Lists of images in text files."""
    for split, names in SPLIT.items():
        made.pictures(root / "images", names)
        made.labels(root / "labels", names)
        made.write(root / f"{split}.txt", "".join(f"./images/{name}.jpg\n" for name in names))
    made.write(root / "data.yaml", "train: train.txt\nval: val.txt\ntest: test.txt\n"
               "names: [apple, pear]\n")  # fmt: skip


def cvat_yolo(root: Path) -> None:
    """CVAT's YOLO 1.1."""
    for split, names in SPLIT.items():
        folder = f"obj_{split}_data"
        made.pictures(root / folder, names)
        made.labels(root / folder, names)
        listed = "".join(f"data/{folder}/{name}.jpg\n" for name in names)
        made.write(root / f"{'valid' if split == 'val' else split}.txt", listed)
    made.write(root / "obj.names", "apple\npear\n")
    made.write(root / "obj.data", "classes = 2\n")


def voc_beside(root: Path) -> None:
    """LabelImg's: suffixes of all kinds, and paths of another machine."""
    for split, names in SPLIT.items():
        made.pictures(root / split, names, ".JPG")
        for name in names:
            path = f"C:\\images\\{split}\\{name}.jpg"
            made.write(root / split / f"{name}.xml", made.xml(name, f"{name}.JPG", path))


def voc_challenge(root: Path) -> None:
    inner = root / "VOCdevkit" / "VOC2012"
    made.pictures(inner / "JPEGImages", ALL)
    for name in ALL:
        made.write(inner / "Annotations" / f"{name}.xml", made.xml(name))
    for split, names in SPLIT.items():
        made.write(inner / "ImageSets" / "Main" / f"{split}.txt", "\n".join(names))
        made.write(inner / "ImageSets" / "Main" / f"apple_{split}.txt", "a  1\nb -1\n")
    made.write(inner / "ImageSets" / "Main" / "trainval.txt", "\n".join("abcde"))


def voc_folders(root: Path) -> None:
    """Annotations/<part> beside images/<part>; each names a wrong image."""
    for split, names in SPLIT.items():
        made.pictures(root / "images" / split, names, ".png")
        for name in names:
            made.write(root / "annotations" / split / f"{name}.xml", made.xml(name, "IMG_1.jpg"))


def labelme_rectangles(root: Path) -> None:
    for split, names in SPLIT.items():
        made.pictures(root / split, names)
        for name in names:
            made.write(root / split / f"{name}.json", made.labelme(name))


def labelme_polygons(root: Path) -> None:
    for split, names in SPLIT.items():
        made.pictures(root / "photos" / split, names)
        for name in names:
            made.write(root / "json" / split / f"{name}.json", made.labelme(name, polygon=True))


@pytest.mark.parametrize(
    "make",
    [
        coco_standard, coco_custom, coco_other_order, roboflow, one_file_with_folders,
        yolo_split_first, yolo_images_first, yolo_beside, yolo_of_another_machine, yolo_lists,
        cvat_yolo, voc_beside, voc_challenge, voc_folders, labelme_rectangles, labelme_polygons,
    ],
)  # fmt: skip
def test_layouts_with_parts(tmp_path: Path, make: Callable[[Path], None]):
    root = tmp_path / "Mes données ☕ 数据"
    make(root)
    before = sorted(str(path) for path in root.rglob("*"))
    expect(read_set(root), train="abc", val="de", test="f")
    assert sorted(str(path) for path in root.rglob("*")) == before


def label_studio(root: Path) -> None:
    """Its COCO: separators of Windows and folders of the server; escapes of URLs."""
    made.pictures(root / "images", ALL, form="90fb {}")
    made.write_coco(root / "result.json", made.coco(ALL, "..\\..\\media\\upload\\4\\90fb%20{}.jpg"))


def label_studio_project(root: Path) -> None:
    made.pictures(root / "images", ALL, form="90fb {}")
    made.write_coco(root / "result.json", made.coco(ALL, "images\\1/90fb {}.jpg"))


def cvat_coco(root: Path) -> None:
    made.pictures(root / "images" / "default", ALL, form="90fb {}")
    made.write_coco(root / "annotations" / "instances_default.json", made.coco(ALL, "90fb {}.jpg"))


def cvat_own(root: Path) -> None:
    made.pictures(root / "images", ALL)
    made.write(root / "annotations.xml", made.cvat(ALL))


def label_studio_yolo(root: Path) -> None:
    made.pictures(root / "images", ALL)
    made.labels(root / "labels", ALL)
    made.write(root / "classes.txt", "apple\npear\n")
    made.write(root / "notes.json", '{"categories": [{"id": 0, "name": "apple"}], "info": {}}')


def voc_flat(root: Path) -> None:
    made.pictures(root, ALL)
    for name in ALL:
        made.write(root / f"{name}.xml", made.xml(name))


@pytest.mark.parametrize(
    "make", [label_studio, label_studio_project, cvat_coco, cvat_own, label_studio_yolo, voc_flat]
)
def test_layouts_without_parts_are_divided(tmp_path: Path, make: Callable[[Path], None]):
    make(tmp_path)
    found = read_set(tmp_path, val_split=1 / 3)
    read = {split: boxes_of(found, split) for split in ("train", "val")}
    together = {stem[-1]: boxes for part in read.values() for stem, boxes in part.items()}
    assert together == BOXES and len(read["val"]) == 2 and found.classes == tuple(CLASSES)
    assert any("2 of 6 are to evaluate on (--val-split 0.333" in note for note in found.notes)
    assert found.division is not None and found.division["seed"] == 0
    # The same for the same seed, whatever the order; another for another.
    again = read_set(tmp_path, val_split=1 / 3)
    assert boxes_of(again, "val") == read["val"]
    others = [
        set(boxes_of(read_set(tmp_path, val_split=1 / 3, seed=s), "val")) for s in range(1, 6)
    ]
    assert any(other != set(read["val"]) for other in others)


def test_augmented_versions_of_a_photograph_stay_together(tmp_path: Path):
    names = [f"{photo}_jpg.rf.{version:032x}" for photo in "vwxyz" for version in range(4)]
    images = [dict(id=i, file_name=f"{n}.jpg", width=40, height=20) for i, n in enumerate(names)]
    made.write_coco(tmp_path / "result.json", {**made.coco(""), "images": images})
    for i, name in enumerate(names):
        made.picture(tmp_path / f"{name}.jpg", i)
    found = read_set(tmp_path)
    photos = {
        split: {i["file_name"][0] for i in part.data["images"]}
        for split, part in found.parts.items()
    }
    assert len(photos["val"]) == 1 and not photos["train"] & photos["val"]


def test_an_image_of_another_part_is_never_taken(tmp_path: Path):
    """val/a.jpg is missing; train/a.jpg is another photograph."""
    made.pictures(tmp_path / "train", "ab")
    made.pictures(tmp_path / "val", "b")
    for split, names in (("train", "ab"), ("val", "ab")):
        made.write_coco(tmp_path / f"{split}.json", made.coco(names, f"{split}\\{{}}.jpg"))
    part = read_set(tmp_path).parts["val"]
    there = [(tmp_path / part.images / i["file_name"]).is_file() for i in part.data["images"]]
    assert there == [False, True]


def test_what_cannot_be_guessed_is_named(tmp_path: Path):
    root = tmp_path / "data"
    made.pictures(tmp_path / "photos", ALL)
    made.write_coco(root / "first.json", made.coco("abc"))
    made.write_coco(root / "second.json", made.coco("de"))
    with pytest.raises(DataError, match="several annotation files"):
        read_set(root)
    photos = str(tmp_path / "photos")
    found = read_set(root, "first.json", "second.json", photos)
    expect(found, train="abc", val="de")
    assert len(read_set(root, "first.json", images=photos).parts["train"].data["images"]) == 2


def test_a_file_stands_for_its_folder(tmp_path: Path):
    yolo_split_first(tmp_path)
    made.write_coco(tmp_path / "train" / "_annotations.coco.json", made.coco("abc"))
    with pytest.raises(
        DataError, match=r"several formats: COCO \(train/_ann.*, YOLO \(data.yaml\)"
    ):
        read_set(tmp_path)
    expect(read_set(tmp_path / "data.yaml"), train="abc", val="de", test="f")
    expect(read_set(tmp_path, train_ann="data.yaml"), train="abc", val="de", test="f")


def test_folders_of_labels_are_named(tmp_path: Path):
    """Boxes of one part alone have all classes in another order than the other's."""
    voc_beside(tmp_path)
    found = read_set(tmp_path, "val", "train")
    assert set(boxes_of(found, "train")) == set("de") and found.classes == tuple(CLASSES)
    assert set(boxes_of(found, "val")) == set("abc")


def test_images_of_two_parts_count_for_the_first(tmp_path: Path):
    """As in COCO128, where validation names the images of training."""
    made.pictures(tmp_path / "images" / "train", ALL)
    made.labels(tmp_path / "labels" / "train", ALL)
    made.write(tmp_path / "coco6.yaml", "path: ../datasets/coco6\ntrain: images/train\n"
               "val: images/train\nnames: {0: apple, 1: pear}\n")  # fmt: skip
    found = read_set(tmp_path)
    assert "6 images are listed for several parts, and count for the first" in found.notes
    assert {**boxes_of(found, "train"), **boxes_of(found, "val")} == BOXES
    assert found.parts["val"].count == 1


def test_paths_of_another_machine_and_nested_folders(tmp_path: Path):
    """train/images beside train/annotations.json; absolute names that exist nowhere."""
    for split, names in (("Train", "abc"), ("Validation", "de")):
        made.pictures(tmp_path / "fruit v2" / split / "images", names)
        data = made.coco(names, "/home/me/fruit/images/{}.jpg")
        made.write_coco(tmp_path / "fruit v2" / split / "annotations.json", data)
    expect(read_set(tmp_path), train="abc", val="de")


def test_a_test_part_serves_where_there_is_no_other(tmp_path: Path):
    for split, names in (("train", "abc"), ("test", "de")):
        made.pictures(tmp_path / split, names)
        for name in names:
            made.write(tmp_path / split / f"{name}.xml", made.xml(name))
    found = read_set(tmp_path)
    expect(found, train="abc", val="de")
    assert "there is no validation part, so students are evaluated on 'test'" in found.notes


def test_boxes_are_those_of_the_upright_photograph(tmp_path: Path):
    """YOLO's numbers are relative, and mmcv turns images by their EXIF orientation."""
    made.turned(tmp_path / "images" / "a.jpg", (40, 20))  # 20 x 40 when it is upright
    made.turned(tmp_path / "images" / "b.jpg", (40, 20))
    for name in "ab":
        made.write(tmp_path / "labels" / f"{name}.txt", "0 0.5 0.5 0.5 0.5")
    part = read_set(tmp_path).parts["train"]
    assert part.data["images"][0]["width"] == 20
    assert part.data["annotations"][0]["bbox"] == [5, 10, 10, 20]


def test_the_challenges_own_files_count_from_one(tmp_path: Path):
    voc_flat(tmp_path)
    for path in tmp_path.glob("*.xml"):
        text = path.read_text().replace("<size>", "<source><database>The VOC2007 Database"
                                        "</database></source><size>")  # fmt: skip
        path.write_text(text)
    found = read_set(tmp_path)
    boxes = {**boxes_of(found, "train"), **boxes_of(found, "val")}
    assert boxes["e"] == [("apple", (5, 1, 16, 12))]


def test_difficult_objects_are_crowds_and_polygons_masks(tmp_path: Path):
    voc_flat(tmp_path / "voc")
    path = tmp_path / "voc" / "b.xml"
    path.write_text(path.read_text().replace("<difficult>0", "<difficult>1"))
    found = read_set(tmp_path / "voc")
    assert sum(a["iscrowd"] for p in found.parts.values() for a in p.data["annotations"]) == 1
    labelme_polygons(tmp_path / "labelme")
    box = read_set(tmp_path / "labelme").parts["train"].data["annotations"][0]
    assert box["segmentation"] == [[2, 4, 12, 4, 12, 14, 2, 14]]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("2 0.5 0.5 0.1 0.1", "a class that is not one of 0 to 1"),
        ("0 0.5 0.5 0.1", "no class and four numbers"),
        ("0 20 10 8 8", "numbers far beyond 1, as of pixels"),
        ("apple 0.5 0.5 0.1 0.1", "no class and four numbers"),
        ("0 nan 0.5 0.1 0.1", "NaN or infinite numbers"),
        ("0.5 0.5 0.5 0.1 0.1", "a class that is not"),
    ],
)
def test_wrong_lines_of_yolo_are_told_with_their_place(tmp_path: Path, line: str, what: str):
    yolo_beside(tmp_path)
    with (tmp_path / "train" / "b.txt").open("a") as file:
        file.write(f"\n{line}\n")
    (fault,) = read_set(tmp_path).faults
    assert what in fault.what and fault.items == ("train/b.txt:2",) and fault.severity == "error"


def test_labels_of_numpy_and_windows_are_read(tmp_path: Path):
    yolo_beside(tmp_path)
    path = tmp_path / "train" / "b.txt"
    numbers = [f"{float(v):.18e}" for v in path.read_text().split()]
    path.write_bytes(("\ufeff" + " ".join(numbers) + "\r\n").encode())
    expect(read_set(tmp_path), train="abc", val="de", test="f")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "is empty; expected annotations of COCO"),
        (["a.jpg", "b.PNG"], "2 images without labels; expected"),
        (["export.zip"], "an archive in it, export.zip; unpack it first"),
        (["notes.docx", "x.csv"], "no images and no annotations"),
        (["data.yaml"], "nothing lies where it says (train: images/train; val: images/val)"),
        (["labels/a.txt", "classes.txt"], "and no images; put the images beside them"),
        (["Annotations/a.xml"], "1 annotations in VOC's format and none of their images"),
        (["a.json"], "1 annotations in LabelMe's format and none of their images"),
        (["annotations.xml"], "names 6 images, and none is in"),
        (["tasks.json"], "is Label Studio's own JSON; export it as COCO or YOLO"),
        (["video.xml"], "but tracks of a video; export the task from CVAT as 'COCO 1.0'"),
        (["package.json"], "no annotation file that is read: found package.json"),
    ],
)
def test_folders_that_cannot_be_read_say_why(tmp_path: Path, files: list[str], said: str):
    contents = {
        ".txt": made.yolo_line("apple", (2, 4, 12, 14)),
        "a.xml": made.xml("a"),
        "a.json": made.labelme("a"),
        "data.yaml": "train: images/train\nval: images/val\nnames: [apple]",
        "annotations.xml": made.cvat(ALL),
        "tasks.json": json.dumps([dict(id=1, data=dict(image="a.jpg"), annotations=[])]),
        "video.xml": "<annotations><track id='0' label='car'></track></annotations>",
        "package.json": "{}",
    }
    for name in files:
        text = next((text for end, text in contents.items() if name.endswith(end)), "")
        made.write(tmp_path / name, text)
    with pytest.raises(DataError) as caught:
        read_set(tmp_path)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_other_wrong_input_is_told(tmp_path: Path):
    with pytest.raises(NotADirectoryError, match=r"no folder is at .*nothing; expected one"):
        read_set(tmp_path / "nothing")
    made.write(tmp_path / "set.zip", "")
    with pytest.raises(DataError, match="is an archive; unpack it"):
        read_set(tmp_path / "set.zip")
    coco_custom(tmp_path / "parts")
    with pytest.raises(
        DataError, match="divided into train, val, test already; leave out --val-sp"
    ):
        read_set(tmp_path / "parts", val_split=0.1)
    with pytest.raises(DataError, match=r"--train-ann: found no gone.json, neither in"):
        read_set(tmp_path / "parts", train_ann="gone.json")
    made.picture(tmp_path / "one" / "a.jpg")
    made.write(tmp_path / "one" / "a.xml", made.xml("a"))
    with pytest.raises(DataError, match="1 image, and two are needed"):
        read_set(tmp_path / "one")
    voc_flat(tmp_path / "flat")
    with pytest.raises(DataError, match=r"expected --val-split between 0 and 1, as 0.2, found 20"):
        read_set(tmp_path / "flat", val_split=20)
    (tmp_path / "parts" / "labels" / "custom_train.json").unlink()
    with pytest.raises(DataError, match=r"no annotation file for train: found .*custom_val.json"):
        read_set(tmp_path / "parts")
    data = made.coco("de", classes=["apple", "pear", "Apple"])
    data["annotations"][0]["category_id"] = 3
    made.write_coco(tmp_path / "parts" / "labels" / "custom_train.json", made.coco("abc"))
    made.write_coco(tmp_path / "parts" / "labels" / "custom_val.json", data)
    with pytest.raises(DataError, match=r"found Apple in labels/custom_val.json and not in"):
        read_set(tmp_path / "parts")


def test_links_are_followed_once(tmp_path: Path):
    yolo_split_first(tmp_path / "elsewhere")
    (tmp_path / "data").mkdir()
    for name in ("train", "valid", "test", "data.yaml"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "elsewhere" / "train" / "round").symlink_to(tmp_path / "elsewhere" / "train")
    expect(read_set(tmp_path / "data"), train="abc", val="de", test="f")


@pytest.mark.skipif(os.name == "nt", reason="folders of Windows are not read-only by their mode")
def test_a_read_only_folder_is_read(tmp_path: Path):
    voc_challenge(tmp_path / "data")
    for path in [tmp_path / "data", *(tmp_path / "data").rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        expect(read_set(tmp_path / "data"), train="abc", val="de", test="f")
    finally:
        for path in [tmp_path / "data", *(tmp_path / "data").rglob("*")]:
            path.chmod(0o755)


def test_odd_values_where_nobody_looks_are_no_matter(tmp_path: Path):
    coco_custom(tmp_path / "coco")
    path = tmp_path / "coco" / "labels" / "custom_train.json"
    data = json.loads(path.read_text())
    data["categories"][0]["supercategory"] = {"a": [1]}
    path.write_text(json.dumps(data))
    expect(read_set(tmp_path / "coco"), train="abc", val="de", test="f")
    labelme_rectangles(tmp_path / "labelme")
    path = tmp_path / "labelme" / "train" / "a.json"
    data = json.loads(path.read_text())
    data["shapes"] += ["x", None]
    path.write_text(json.dumps(data))
    expect(read_set(tmp_path / "labelme"), train="abc", val="de", test="f")


def test_a_thousand_classes(tmp_path: Path):
    made.pictures(tmp_path, "ab")
    names = [f"class {i}" for i in range(1000)]
    for name in "ab":
        made.write(tmp_path / f"{name}.txt", "\n".join(f"{i} 0.5 0.5 0.2 0.2" for i in range(1000)))
    made.write(tmp_path / "classes.txt", "\n".join(names))
    assert read_set(tmp_path).classes == tuple(names)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ann.json", '{"images": [', r"ann\.json is not valid JSON \(.*\); export it again"),
        ("data.yaml", "train: [a\nnames: {", r"data\.yaml is not valid YAML: .*; correct it"),
        ("a.xml", "<annotation><object>", r"no \.xml file of .* is valid XML: a\.xml; export it"),
    ],
)
def test_a_file_that_cannot_be_parsed_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=message):
        read_set(tmp_path)
