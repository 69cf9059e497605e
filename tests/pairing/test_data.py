"""Data reaches all loaders, with the student's pipelines, or as a config of mmdet says."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from mmdet.registry import DATASETS, METRICS
from mmengine.registry import DefaultScope
from small import edit_annotations
from zoo import FASTER

from kd_det.datasets.coco import DataError
from kd_det.pairing.data import drop_semantic_head, read_data
from kd_det.pairing.methods import find_coco
from kd_det.pairing.text import read_bases, read_config

DIGITS = tuple("0123456789")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work directories are made in the current one."""
    monkeypatch.chdir(tmp_path)


MASKS = "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"
REPEATED = "mmdet::faster_rcnn/faster-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco.py"


def build(dataset: dict[str, Any]) -> Any:
    with DefaultScope.overwrite_default_scope("mmdet"):
        return DATASETS.build(dataset)


@pytest.fixture(scope="module")
def base() -> dict:
    return read_bases([find_coco()])


def test_a_folder_reaches_all_loaders_and_the_pipelines_stay(digits, base, tmp_path):
    student = read_config(FASTER)
    data = read_data(str(digits), student, base, tmp_path / "work")
    assert data.classes == DIGITS and data.images == 24
    # A valid file needs no copy; what was seen of the images is kept.
    assert [path.name for path in (tmp_path / "work").rglob("*.*")] == ["images.json"]
    for part, split in (("train", "train"), ("val", "val"), ("test", "val")):
        dataset = data.settings[f"{part}_dataloader"]["dataset"]
        assert dataset["data_root"] == f"{digits}/"
        assert dataset["ann_file"] == f"annotations/instances_{split}.json"
        assert dataset["data_prefix"] == dict(img=f"{split}/")
        assert dataset["metainfo"] == dict(classes=DIGITS)
        assert dataset["pipeline"] == student[f"{part}_dataloader"]["dataset"]["pipeline"]
    for part in ("val", "test"):
        evaluator = data.settings[f"{part}_evaluator"]
        assert evaluator["ann_file"] == f"{digits}/annotations/instances_val.json"
    assert student == read_config(FASTER)


def test_wrappers_of_the_student_stay(digits, base):
    """Warm-up is a part of training: eight times longer where an epoch sees each image so often."""
    data = read_data(str(digits), read_config(REPEATED), base)
    dataset = data.settings["train_dataloader"]["dataset"]
    assert (dataset["type"], dataset["times"], data.images) == ("RepeatDataset", 8, 8 * 24)
    assert dataset["dataset"]["data_root"] == f"{digits}/"


def test_a_config_is_taken_as_it_is(tmp_path, base, digits):
    more = "val_evaluator = dict(type='V')\n"
    config = loader_config(tmp_path / "fruit.py", *[source(digits, "train")] * 2, more)
    data = read_data(config, {}, base)
    # Without metainfo mmdet would look for COCO's names in the file, and find none.
    assert data.classes == DIGITS
    for part in ("train", "val", "test"):
        assert data.settings[f"{part}_dataloader"]["dataset"]["metainfo"]["classes"] == DIGITS
    assert data.settings["test_evaluator"] == dict(type="V")


def test_without_data_it_is_the_students(base):
    student = read_config(FASTER)
    data = read_data(None, student, base)
    assert len(data.classes) == 80 and data.classes[0] == "person"
    assert data.settings["train_dataloader"] == student["train_dataloader"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1", "has no train_dataloader and no val_dataloader; give --data a folder of"),
        (
            "train_dataloader = val_dataloader = dict(dataset=dict(type='BaseDetDataset'))",
            "does not say its classes",
        ),
    ],
)
def test_configs_that_do_not_say_enough(tmp_path, base, text, message):
    path = tmp_path / "some.py"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_data(str(path), {}, base)


def labelled(dataset: Any) -> list[tuple[int, str]]:
    """Image and class name of each object, as training sees them."""
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    return [
        (info["img_id"], dataset.metainfo["classes"][each["bbox_label"]])
        for info in infos
        for each in info["instances"]
    ]


def loader_config(path: Path, train: str, val: str, more: str = "") -> str:
    """A config of data alone; ``train`` and ``val`` are sources of dicts."""
    path.write_text(
        f"train_dataloader = dict(batch_size=2, dataset={train})\n"
        f"val_dataloader = dict(batch_size=1, dataset={val})\n{more}"
    )
    return str(path)


def source(folder: Path, split: str, classes: tuple[str, ...] | None = None) -> str:
    metainfo = f", metainfo=dict(classes={classes!r})" if classes else ""
    return (
        f"dict(type='CocoDataset', data_root='{folder}/', data_prefix=dict(img='{split}/'), "
        f"ann_file='annotations/instances_{split}.json', pipeline=[]{metainfo})"
    )


def test_a_repaired_copy_is_read_and_the_data_is_left_alone(folder, base, tmp_path):
    expected = labelled(
        build(read_data(str(folder), {}, base).settings["train_dataloader"]["dataset"])
    )

    def spoil(data: dict[str, Any]) -> None:
        for category in data["categories"]:
            category["name"] = int(category["name"])
        for annotation in data["annotations"]:
            del annotation["area"], annotation["iscrowd"], annotation["id"]

    edit_annotations(folder, spoil)
    before = [path.read_bytes() for path in sorted(folder.glob("**/*.json"))]
    data = read_data(str(folder), {}, base, tmp_path / "work")
    assert [path.read_bytes() for path in sorted(folder.glob("**/*.json"))] == before
    settings = data.settings
    copies = [settings[f"{part}_dataloader"]["dataset"]["ann_file"] for part in ("train", "val")]
    assert all(Path(copy).parent == tmp_path / "work" / "data" for copy in copies)
    for part in ("val", "test"):
        assert settings[f"{part}_evaluator"]["ann_file"] == copies[1]
    assert data.classes == DIGITS
    assert labelled(build(settings["train_dataloader"]["dataset"])) == expected
    told = [decision for decision in data.decisions if "repaired copy" in decision]
    assert len(told) == 2 and "area, as width x height" in told[0]
    assert any(f"of {copies[0]} in" in decision for decision in data.decisions)


def test_a_config_s_files_are_repaired_as_well(folder, base, tmp_path):
    edit_annotations(folder, lambda data: [a.pop("area") for a in data["annotations"]])
    evaluator = (
        "val_evaluator = dict(type='CocoMetric', "
        f"ann_file='{folder}/annotations/instances_val.json')"
    )
    config = loader_config(
        tmp_path / "c.py",
        f"dict(type='RepeatDataset', times=2, dataset={source(folder, 'train')})",
        source(folder, "val"),
        evaluator,
    )
    settings = read_data(config, {}, base, tmp_path / "work").settings
    assert len(build(settings["train_dataloader"]["dataset"])) == 48
    copy = settings["val_dataloader"]["dataset"]["ann_file"]
    assert copy == str(tmp_path / "work" / "config" / "val1_annotations.json")
    assert settings["val_evaluator"]["ann_file"] == copy
    assert settings["test_evaluator"]["ann_file"] == copy


REVERSED = DIGITS[::-1]


@pytest.fixture
def reversed_folder(digits: Path, tmp_path: Path) -> Path:
    other = Path(shutil.copytree(digits, tmp_path / "reversed"))
    edit_annotations(other, lambda data: data["categories"].reverse())
    return other


def test_labels_in_the_order_of_the_file_are_taken(reversed_folder, base, tmp_path):
    config = loader_config(
        tmp_path / "c.py", source(reversed_folder, "train"), source(reversed_folder, "val")
    )
    for data in (str(reversed_folder), config):
        assert read_data(data, {}, base).classes == REVERSED


# Data sets by name: files in the order of the digits and in the reversed one, metainfo or none.
SOURCES = dict(
    plain=("data", None),
    ordered=("data", DIGITS),
    backwards=("data", REVERSED),
    reversed=("reversed", None),
    clash=("reversed", DIGITS),
    other=("data", ("zero", *DIGITS[1:])),
)
BOTH_ORDERS = r"'0', '1'.*'9', '8'|'9', '8'.*'0', '1'"


@pytest.mark.parametrize(
    ("train", "val", "evaluated", "message"),
    [
        (["clash"], "clash", None, BOTH_ORDERS),  # metainfo in another order than the file
        (["plain"], "reversed", None, BOTH_ORDERS),
        (["ordered"], "clash", None, BOTH_ORDERS),
        (["ordered"], "backwards", None, BOTH_ORDERS),
        (["ordered", "clash"], "ordered", None, r"numbers labels in the order.*reversed/"),
        (["ordered"], "ordered", "reversed", r"order of the file.*reversed/"),
        (["other"], "other", None, r"train\.json has no category 'zero'; expected"),
    ],
)
def test_files_that_do_not_fit_the_classes_are_told(
    folder, reversed_folder, base, tmp_path, train, val, evaluated, message
):
    def named(name: str, split: str) -> str:
        root, classes = SOURCES[name]
        return source(tmp_path / root, split, classes)

    learnt = ", ".join(named(name, "train") for name in train)
    more = (
        "val_evaluator = dict(type='CocoMetric', "
        f"ann_file='{tmp_path}/{evaluated}/annotations/instances_val.json')"
    )
    config = loader_config(
        tmp_path / "c.py",
        f"dict(type='ConcatDataset', datasets=[{learnt}])",
        named(val, "val"),
        more if evaluated else "",
    )
    with pytest.raises(DataError, match=message):
        read_data(config, {}, base)


def test_a_part_of_the_classes_may_be_learnt(folder, base, tmp_path):
    classes = ("1", "3")
    config = loader_config(
        tmp_path / "c.py", source(folder, "train", classes), source(folder, "val", classes)
    )
    data = read_data(config, {}, base)
    assert data.classes == classes
    names = {name for _, name in labelled(build(data.settings["train_dataloader"]["dataset"]))}
    assert names == {"1", "3"}


def test_classes_may_lie_in_a_file_or_be_those_of_the_type(folder, base, tmp_path):
    (tmp_path / "classes.txt").write_text("\n".join(DIGITS))
    config = loader_config(tmp_path / "c.py", source(folder, "train"), source(folder, "val"))
    student = read_config(config)
    metainfo = dict(classes=str(tmp_path / "classes.txt"))
    student["train_dataloader"]["dataset"]["metainfo"] = metainfo
    assert read_data(None, student, base).classes == DIGITS
    data = read_data("mmdet::_base_/datasets/cityscapes_detection.py", {}, base)
    assert len(data.classes) == 8 and data.classes[-1] == "bicycle"


def polygons(data: dict[str, Any]) -> None:
    for annotation in data["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h]]


def join(student: dict[str, Any], *pipelines: Any) -> None:
    one = student["train_dataloader"]["dataset"]
    both = [dict(one, pipeline=pipeline) for pipeline in pipelines]
    student["train_dataloader"]["dataset"] = dict(type="ConcatDataset", datasets=both)


def join_unlike(student: dict[str, Any], folder: Path) -> None:
    pipeline = student["train_dataloader"]["dataset"]["pipeline"]
    join(student, pipeline, pipeline[:-1])


def want_large_images(student: dict[str, Any], folder: Path) -> None:
    student["train_dataloader"]["dataset"]["filter_cfg"]["min_size"] = 65


def have_no_objects(student: dict[str, Any], folder: Path) -> None:
    edit_annotations(folder, lambda data: data["annotations"].clear(), "train")


def evaluate_masks_that_are_missing(student: dict[str, Any], folder: Path) -> None:
    edit_annotations(folder, lambda d: [a.pop("segmentation", 0) for a in d["annotations"]], "val")
    for transform in student["val_dataloader"]["dataset"]["pipeline"]:
        transform.pop("with_mask", None)


def learn_masks_that_are_missing(student: dict[str, Any], folder: Path) -> None:
    edit_annotations(folder, lambda data: data["annotations"][1].pop("segmentation"), "train")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (FASTER, join_unlike, "the student's train_dataloader joins 2 data sets"),
        (FASTER, want_large_images, "less than 65 pixels on a side"),
        (FASTER, have_no_objects, r"instances_train\.json has no object of any class"),
        (MASKS, evaluate_masks_that_are_missing, r"val_evaluator compares masks .*_val\.json"),
        (MASKS, learn_masks_that_are_missing, r"learns masks, and 1 of .*instances_train\.json"),
    ],
)
def test_what_the_student_cannot_learn_is_told(folder, base, name, change, message):
    edit_annotations(folder, polygons)
    student = read_config(name)
    change(student, folder)
    with pytest.raises(DataError, match=message):
        read_data(str(folder), student, base)


def test_a_folder_takes_the_place_of_data_sets_that_are_joined(folder, base):
    student = read_config(FASTER)
    expected = read_data(str(folder), student, base)
    pipeline = student["train_dataloader"]["dataset"]["pipeline"]
    join(student, pipeline, pipeline)
    repeated = dict(type="RepeatDataset", times=3, dataset=student["train_dataloader"]["dataset"])
    student["train_dataloader"]["dataset"] = repeated
    data = read_data(str(folder), student, base)
    dataset = data.settings["train_dataloader"]["dataset"]
    assert dataset["dataset"] == expected.settings["train_dataloader"]["dataset"]
    assert data.images == 3 * expected.images


def test_an_evaluator_derived_from_that_of_voc_keeps_what_coco_knows(folder, base):
    student = read_config("mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712-cocofmt.py")
    assert "eval_mode" in student["val_evaluator"]
    with DefaultScope.overwrite_default_scope("mmdet"):
        METRICS.build(read_data(str(folder), student, base).settings["val_evaluator"])


def test_a_semantic_head_is_dropped_where_the_data_have_no_maps(folder, base):
    edit_annotations(folder, polygons)
    student = read_config("mmdet::htc/htc_r50_fpn_1x_coco.py")
    own = read_data(None, student, base)
    assert drop_semantic_head(student, own) == []
    assert student["model"]["roi_head"]["semantic_head"]["num_classes"] == 183
    data = read_data(str(folder), student, base)
    (said,) = drop_semantic_head(student, data)
    assert "no semantic segmentation maps" in said
    assert student["model"]["roi_head"]["semantic_head"] is None
    sample = build(data.settings["train_dataloader"]["dataset"])[0]
    assert (
        "gt_sem_seg" not in sample["data_samples"]
        and "masks" in sample["data_samples"].gt_instances
    )


def test_what_the_student_can_learn_passes(folder, base):
    edit_annotations(folder, polygons)
    read_data(str(folder), read_config(MASKS), base)
    # With every image kept, there is background.
    student = read_config(FASTER)
    have_no_objects(student, folder)
    student["train_dataloader"]["dataset"]["filter_cfg"] = None
    data = read_data(str(folder), student, base)
    assert len(build(data.settings["train_dataloader"]["dataset"])) == 24


@pytest.mark.parametrize(
    "name",
    [
        "openimages/faster-rcnn_r50_fpn_32xb2-1x_openimages.py",
        "lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py",
        "cityscapes/faster-rcnn_r50_fpn_1x_cityscapes.py",
        "dsdl/openimagesv6.py",  # whose images lie on a server
    ],
)
def test_students_of_other_data_sets_learn_from_a_folder(folder, base, name):
    edit_annotations(folder, polygons)
    data = read_data(str(folder), read_config(f"mmdet::{name}"), base)
    for part in ("train", "val", "test"):
        dataset = build(data.settings[f"{part}_dataloader"]["dataset"])
        assert dataset.metainfo["classes"] == DIGITS and labelled(
            getattr(dataset, "dataset", dataset)
        )
        assert dataset[0]["inputs"].dim() == 3  # read from the folder
