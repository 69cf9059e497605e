"""The index that mim reads names what is there, and says no more than was measured."""

from __future__ import annotations

import re

import modelindex
import pytest
import yaml
from mmengine.config import Config
from small import ROOT

from kd_det.version import __version__


@pytest.fixture(scope="module")
def models(request):
    monkeypatch = pytest.MonkeyPatch()
    request.addfinalizer(monkeypatch.undo)
    monkeypatch.chdir(ROOT)  # paths in it are the repository's
    index = modelindex.load("model-index.yml")
    index.build_models_with_collections()
    return {model.config: model for model in index.models}


def test_every_recipe_is_in_it(models):
    configs = ROOT / "configs"
    folders = ("", "digits", "cls", "cls/digits")
    recipes = [path for folder in folders for path in (configs / folder).glob("*.py")]
    alone = {"plain", "teacher"}  # nothing is distilled in them
    assert models.keys() == {
        str(path.relative_to(ROOT)) for path in recipes if path.stem not in alone
    }


def test_what_it_says_of_a_training_is_the_configs(models):
    for path, model in models.items():
        cfg, said = Config.fromfile(ROOT / path), model.metadata.data
        assert said["Epochs"] == cfg.train_cfg.max_epochs, path
        size = cfg.get("auto_scale_lr", {}).get("base_batch_size", cfg.train_dataloader.batch_size)
        assert said.get("Batch Size", size) == size, path


def test_its_collections_are_those_of_the_file(models):
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
    collections = yaml.safe_load((ROOT / "configs" / "metafile.yml").read_text())["Collections"]
    assert {model.in_collection for model in models.values()} == {c["Name"] for c in collections}


def test_results_are_those_that_were_measured(models):
    table = (ROOT / "docs" / "results" / "compare_digits-coco_e4.md").read_text()
    measured = dict(re.findall(r"^\| (\w+) \| (0\.\d+) \|", table, re.M))
    for path, model in models.items():
        if path.startswith("configs/digits/"):
            (result,) = model.results
            method = Config.fromfile(ROOT / path).method
            assert result.metrics["box AP"] == pytest.approx(100 * float(measured[method]))
        else:
            assert not model.results
        assert model.weights is None
