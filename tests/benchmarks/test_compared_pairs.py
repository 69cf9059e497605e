"""compare.py --pair: its detectors can be paired, and what is written of them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from small import build

pytestmark = pytest.mark.usefixtures("offline")

PYRAMIDS = ["robust", "cwd", "pkd", "review"]
# The methods that are compared on each pair, and the strides that both sides have.
FITTING = {
    "gfl": [*PYRAMIDS, "kd", "kd_nd", "crosskd", "crosskd_pkd", "robust_crosskd", "ld"],
    "fcos": [*PYRAMIDS, "kd", "kd_nd", "crosskd", "crosskd_pkd", "robust_crosskd"],
    "cross": PYRAMIDS,
}
STRIDES = [4, 8, 16, 32, 64]


@pytest.mark.parametrize("name", FITTING)
def test_methods_of_a_pair_are_those_that_fit_it(benchmark, digits, tmp_path, name):
    pairs: ModuleType = benchmark("_pairs")
    from _trainings import training
    from mmengine.config import Config

    setting = pairs.DensePair(tmp_path, digits, Path(), 64, "student", 1, name)
    teacher = training(tmp_path, "teacher", setting.config("teacher", 1, 0), [])
    assert setting.fitting(teacher, pairs.DEFAULT) == FITTING[name]
    student = Config.fromfile(setting.plain(2, seed=3).config)
    assert student.randomness.seed == 3 and student.train_cfg.max_epochs == 2
    assert "RandomFlip" not in str(student.train_dataloader.dataset.pipeline)
    sizes = []
    for cfg in (setting.config("teacher", 1, 0), student):
        model = build(cfg.model)
        maps = model.extract_feat(torch.zeros(1, 3, 128, 128))
        assert [128 // x.shape[-1] for x in maps] == STRIDES
        sizes.append(sum(p.numel() for p in model.parameters()))
    assert sizes[0] > 2 * sizes[1]


def test_photographs_are_flipped_and_start_from_imagenet(benchmark, digits, tmp_path):
    pairs = benchmark("_pairs")
    setting = pairs.DensePair(tmp_path, digits, tmp_path, 64, "student", 1, "gfl", scratch=False)
    cfg = setting.config("student", 1, 0)
    assert "RandomFlip" in str(cfg.train_dataloader.dataset.pipeline)
    assert cfg.model.backbone.init_cfg.checkpoint == str(tmp_path / "lite0.pth")
    assert cfg.model.data_preprocessor.mean == [127.5] * 3
    assert cfg.optim_wrapper.optimizer.lr == 5e-4


def test_the_table_of_a_pair_says_what_was_run(benchmark: Callable[[str], ModuleType]):
    args = Namespace(
        data=Path("data/masks"), scale=[192, 160], epochs=3, teacher_epochs=12, seeds=[0, 1],
        pair="cross", weights=Path("weights"),
    )  # fmt: skip
    results = {("plain", 0): 0.2, ("plain", 1): 0.4, ("cwd", 0): 0.4, ("cwd", 1): 0.4}
    text = benchmark("compare").pair_report(args, ["cwd"], 0.5, results, [])
    assert "`masks` at 192 pixels, 3 epochs, seeds 0 1. faster teaches gfl, narrow, from I" in text
    assert "| cwd | 0.400 | 0.000 | 50% |" in text


def test_places_and_options_of_a_pair(benchmark, monkeypatch, capsys):
    compare = benchmark("compare")
    monkeypatch.setattr("sys.argv", ["compare.py", "--pair", "gfl", "--data", "data/masks"])
    args = compare.parse_args()
    assert args.methods == []
    assert args.root == Path("work_dirs/masks_gfl_128x128_teacher_e6")
    assert args.out == Path("docs/results/compare_masks_gfl_e4.md")
    monkeypatch.setattr("sys.argv", ["compare.py"])
    methods = compare.parse_args().methods  # of the Faster R-CNNs, which cannot learn by LD
    assert "review_nd" in methods and "ld" not in methods
    monkeypatch.setattr("sys.argv", ["compare.py", "--weights", "weights"])
    with pytest.raises(SystemExit):
        compare.parse_args()
    assert "--weights is for --pair" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["compare.py", "--pair", "gfl", "--inherit"])
    with pytest.raises(SystemExit):
        compare.parse_args()
    assert "--init-student-from-teacher are not for --pair" in capsys.readouterr().err
