"""docs/mixing.md: its example trains, and the modules in its tables can be recorded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from small import ROOT
from small_cls import (
    batch,
    build_classifier,
    detection_batch,
    give_random_centers,
    losses_of,
)
from snippets import block

pytestmark = pytest.mark.usefixtures("offline")

PAGE = ROOT / "docs" / "mixing.md"
TEXT = PAGE.read_text()
ROWS = [line.strip("| ").split("|") for line in TEXT.splitlines() if re.match(r"\| `\w+/", line)]
COLUMNS = ("features", "embedding", "logits", "labels")


def test_the_worked_example_trains(tmp_path: Path):
    for name in ("my_student.py", "my_distill.py"):
        (tmp_path / name).write_text(block(PAGE, f"# {name}\n"))
    cfg = Config.fromfile(tmp_path / "my_distill.py")
    cfg.model.teacher.backbone.init_cfg = None
    torch.save(build_classifier(cfg.model.teacher, "mmdet").state_dict(), tmp_path / "t.pth")
    cfg.model.teacher_ckpt = str(tmp_path / "t.pth")
    model = build_classifier(cfg.model, "mmdet")
    give_random_centers(model)
    losses = losses_of(model, detection_batch(128))
    distilled = {key for key in losses if key.startswith("distill.")}
    assert distilled == {"distill.loss_kd", "distill.loss_nd", "distill.loss_review"}


def names_in(cell: str) -> list[str]:
    """Module names in a cell; ``a.1`` ... ``a.4`` stands for those between too."""
    names = re.findall(r"`([^`]+)`", cell)
    if "..." not in cell:
        return names
    first, last = (re.fullmatch(r"(.*?)(\d+)", name) for name in names)
    assert first and last and first[1] == last[1]
    return [f"{first[1]}{i}" for i in range(int(first[2]), int(last[2]) + 1)]


def recorder(cell: str, column: str) -> dict:
    names = names_in(cell)
    if column == "labels":
        return dict(type="ModuleInputs", source=names[0])
    if len(names) > 1:
        return dict(type="kd_det.Pyramid", levels=names)
    kind = {"in": "ModuleInputs", "out": "ModuleOutputs"}[cell.split()[0]]
    return dict(type=kind, source=names[0])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].split("`")[1])
def test_every_entry_of_the_tables_is_recorded(row):
    from mmengine.hub import get_config
    from mmrazor.models.task_modules import RecorderManager

    config = row[0].split("`")[1]
    package = "mmdet" if config in TEXT[: TEXT.index("Classifiers of mmpretrain")] else "mmpretrain"
    cells = {c: cell.strip() for c, cell in zip(COLUMNS, row[1:]) if cell.strip()}
    cfg = get_config(f"{package}::{config}.py")
    torch.manual_seed(0)
    if "data_preprocessor" in cfg:
        cfg.model.setdefault("data_preprocessor", cfg.data_preprocessor)
    if package == "mmpretrain":
        cfg.model.pop("train_cfg", None)  # it would mix images
        cfg.model.data_preprocessor.pop("batch_augments", None)
        data = batch(1000, 224 if "swin" in config else 64)
    else:
        data = with_masks(detection_batch(128)) if "mask" in config else detection_batch(128)
    model = build_classifier(cfg.model, package)
    recorders = RecorderManager(
        {c: {"_scope_": "mmrazor", **recorder(cell, c)} for c, cell in cells.items()}
    )
    recorders.initialize(model)
    with recorders, torch.no_grad():
        model(**model.data_preprocessor(data), mode="loss")

    def read(column: str, **index: int) -> object:
        return recorders.get_recorder(column).get_record_data(**index)

    if "features" in cells:
        maps = read("features")
        assert len(maps) >= 3 and all(m.dim() == 4 for m in maps)
        sides = [m.shape[-1] for m in maps]
        assert sides == sorted(sides, reverse=True) and sides[0] > sides[-1]
    if "embedding" in cells:
        embedding, logits = read("embedding", data_idx=0), read("logits")
        labels = read("labels", data_idx=1)
        assert embedding.dim() == logits.dim() == 2 and labels.dim() == 1
        assert len(embedding) == len(logits) == len(labels) and not labels.is_floating_point()
    else:
        assert read("logits").dim() == 4
        if "level" not in row[0]:
            assert read("logits", record_idx=2).shape[-1] < read("logits").shape[-1]


def with_masks(data: dict) -> dict:
    from mmdet.structures.mask import BitmapMasks

    for image, sample in zip(data["inputs"], data["data_samples"]):
        size = tuple(image.shape[1:])
        sample.gt_instances.masks = BitmapMasks(torch.ones(2, *size).byte().numpy(), *size)
    return data
