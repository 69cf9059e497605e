"""Files that any config names are checked before anything is built, whoever wrote the config."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mmengine.config import Config
from small import digits_config, edit_annotations

from kd_det.config_files import check_files
from kd_det.datasets.coco import DataError
from kd_det.errors import InvalidInputError

TRAIN = "annotations/instances_train.json"


@pytest.fixture
def cfg(folder: Path, tmp_path: Path) -> Config:
    return digits_config("plain", folder, tmp_path / "work")


@pytest.mark.parametrize(
    ("split", "edit", "message"),
    [
        ("train", lambda d: d["annotations"][3].update(category_id=77), "unknown category_id"),
        ("val", lambda d: d["categories"].reverse(), "numbers labels in the order of the file"),
        ("train", lambda d: d["categories"][3].update(name="three"), "has no category '3'"),
        (
            "val",
            lambda d: [a.pop("area") for a in d["annotations"]],
            "not as mmdet needs it: .* area",
        ),
    ],
)
def test_annotations_are_checked(cfg, folder, split, edit, message):
    edit_annotations(folder, edit, split)
    with pytest.raises(DataError, match=message) as caught:
        check_files(cfg, ("train", "val"))
    assert f"instances_{split}.json" in str(caught.value)


@pytest.mark.parametrize("variable", ["RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"])
def test_the_first_process_checks_annotations_for_all(cfg, folder, monkeypatch, variable):
    edit_annotations(folder, lambda d: d["categories"].reverse(), "train")
    monkeypatch.setenv(variable, "1")
    check_files(cfg, ("train",))
    cfg.train_dataloader.dataset.ann_file = "gone.json"
    with pytest.raises(FileNotFoundError, match=r"gone\.json"):  # costs nothing
        check_files(cfg, ("train",))


def test_what_mmdet_does_not_need_may_be_missing(cfg, folder):
    """Crowd flags in training, where mmdet takes none for 0, and all annotations of a test set."""
    check_files(cfg, ("train", "val", "test"))
    edit_annotations(folder, lambda d: [a.pop("iscrowd") for a in d["annotations"]], "train")
    edit_annotations(folder, lambda d: d.pop("annotations"), "val")
    check_files(cfg, ("train", "test"))
    with pytest.raises(DataError, match="found no annotations"):
        check_files(cfg, ("val",))


def test_each_piece_of_joined_data_is_checked(cfg, folder, tmp_path):
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    edit_annotations(other, lambda d: d["categories"].reverse(), "train")
    one = cfg.train_dataloader.dataset
    two = {**one, "data_root": str(other)}
    cfg.train_dataloader.dataset = dict(
        type="RepeatDataset", times=2, dataset=dict(type="ConcatDataset", datasets=[one, two])
    )
    with pytest.raises(DataError, match=r"order of the file.*other/annotations"):
        check_files(cfg, ("train",))


@pytest.mark.parametrize("kind", ["Objects365V1Dataset", "NobodysDataset"])
def test_datasets_that_read_files_in_another_way_are_left_to_mmdet(cfg, folder, kind):
    edit_annotations(folder, lambda d: d["categories"].reverse(), "train")
    cfg.train_dataloader.dataset.type = kind
    check_files(cfg, ("train",))
    (folder / TRAIN).write_text("<html>")
    with pytest.raises(InvalidInputError, match=r"expected JSON in COCO format, found b'<html>'"):
        check_files(cfg, ("train",))


@pytest.mark.parametrize(
    "where", [{"data_root": "s3://bucket/"}, {"backend_args": dict(backend="petrel")}]
)
def test_data_that_is_elsewhere_is_not_looked_for(cfg, where):
    cfg.train_dataloader.dataset.update(where)
    check_files(cfg, ("train",))


def test_types_may_be_classes(cfg, folder):
    from mmdet.datasets import CocoDataset

    cfg.train_dataloader.dataset.type = CocoDataset
    edit_annotations(folder, lambda d: d["categories"].reverse(), "train")
    with pytest.raises(DataError, match="order of the file"):
        check_files(cfg, ("train",))
