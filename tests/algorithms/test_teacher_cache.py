"""A run whose teacher's pyramids come from the cache is the run without it, bit for bit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from small import build, runner
from torch import Tensor

from kd_det.algorithms.teacher_cache import digests
from kd_det.algorithms.wiring import WiringError
from kd_det.centers import ClassCenters


def model_with(cfg: Any, **speed: object) -> Any:
    torch.manual_seed(0)
    cfg = copy.deepcopy(cfg)
    cfg.model.speed = speed
    model = build(cfg.model)
    centers = ClassCenters(11, 128)
    centers.update(torch.rand(22, 128, generator=torch.Generator()), torch.arange(22) % 11)
    model.distiller.distill_losses["loss_nd"].set_centers(centers)
    return model.train()


def losses(model: Any, batch: dict, rows: list[int]) -> dict[str, Tensor]:
    chosen = {name: [values[row] for row in rows] for name, values in copy.deepcopy(batch).items()}
    torch.manual_seed(0)
    with torch.no_grad():
        found = model(**model.data_preprocessor(chosen, training=True), mode="loss")
    return {name: value for name, value in found.items() if name.startswith("distill")}


@pytest.mark.parametrize("options", [{}, dict(channels_last=True), dict(fuse_conv_bn=True)])
def test_images_that_come_again_are_not_computed_again(cfg, batch, tmp_path, options):
    plain = model_with(cfg, **options)
    model = model_with(cfg, cache_teacher=dict(folder=str(tmp_path)), **options)
    sizes: list[int] = []
    stem = model.teacher.backbone.conv1
    stem.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    # New, known in another order, partly known, one unknown (with a known one beside it), alone.
    for rows, computed in (
        ([0, 1], [2]), ([1, 0], []), ([0, 2, 3, 1], [2]), ([3, 2], []), ([0], [1]), ([0], []),
    ):  # fmt: skip
        sizes.clear()
        found, expected = losses(model, batch, rows), losses(plain, batch, rows)
        assert found.keys() == expected.keys() and len(found) == 3
        assert all(torch.equal(found[name], expected[name]) for name in found), rows
        assert sizes == computed
    assert model.fixed_teacher.cache.take_share() == pytest.approx(7 / 12)
    # Another process of the same teacher knows them, too; one of another precision does not.
    again = model_with(cfg, cache_teacher=dict(folder=str(tmp_path)), **options)
    losses(again, batch, [0, 1])
    assert again.fixed_teacher.cache.hits == 2
    half = dict(cache_teacher=dict(folder=str(tmp_path)), teacher_dtype="bfloat16", **options)
    other = model_with(cfg, **half)
    losses(other, batch, [0, 1])
    assert other.fixed_teacher.cache.misses == 2


def test_one_unknown_image_is_computed_in_a_batch_of_two(cfg, batch, tmp_path):
    plain = model_with(cfg)
    model = model_with(cfg, cache_teacher=dict(folder=str(tmp_path)))
    losses(model, batch, [0, 1, 2])
    found, expected = losses(model, batch, [3, 1, 2]), losses(plain, batch, [3, 1, 2])
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert model.fixed_teacher.cache.misses == 4


def test_a_run_has_the_same_weights(cfg, tmp_path):
    cfg.train_dataloader.dataset.indices = 6  # the last batch is smaller
    cfg.train_cfg.update(max_epochs=3, val_interval=9)
    cfg.default_hooks.logger.interval = 1
    weights = []
    for name, speed in (("plain", {}), ("cached", dict(cache_teacher=dict(folder=str(tmp_path))))):
        cfg.work_dir = str(tmp_path / name)
        cfg.model.speed = speed
        run = runner(copy.deepcopy(cfg))
        run.train()
        weights.append(run.model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    shares = run.message_hub.get_scalar("train/teacher_cached").data[0]
    assert shares[:2].sum() == 0 and shares[2:].sum() > 0


def test_a_full_cache_is_said_and_changes_nothing(cfg, batch, tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(
        "kd_det.algorithms.teacher_cache.print_log", lambda text, **_: said.append(text)
    )
    # Room for one image: 64 channels of 16^2 + 8^2 + 4^2 + 2^2 + 1 positions.
    budget = 1.5 * 4 * 64 * 341 / 1e9
    model = model_with(cfg, cache_teacher=dict(folder=str(tmp_path), budget_gb=budget))
    plain = model_with(cfg)
    for _ in range(2):
        found, expected = losses(model, batch, [0, 1]), losses(plain, batch, [0, 1])
        assert all(torch.equal(found[name], expected[name]) for name in found)
    assert model.fixed_teacher.cache.hits == 1
    assert len(list(tmp_path.glob("*/*/*.safetensors"))) == 1
    assert len(said) == 2 and said[1].startswith("The teacher's cache is full")


def test_half_the_bytes(cfg, batch, tmp_path):
    sizes = {}
    for dtype in (None, "bfloat16"):
        folder = tmp_path / str(dtype)
        model = model_with(cfg, cache_teacher=dict(folder=str(folder), dtype=dtype))
        first, second = (losses(model, batch, [0, 1]) for _ in range(2))
        for name, value in second.items():
            torch.testing.assert_close(value, first[name], rtol=0.02, atol=0.02)
        sizes[dtype] = sum(f.stat().st_size for f in folder.glob("*/*/*.safetensors"))
    assert sizes["bfloat16"] == pytest.approx(sizes[None] / 2, rel=0.02)


def test_a_broken_file_is_made_anew(cfg, batch, tmp_path):
    model = model_with(cfg, cache_teacher=dict(folder=str(tmp_path)))
    losses(model, batch, [0, 1])
    first, second = sorted(tmp_path.glob("*/*/*.safetensors"))
    first.write_bytes(second.read_bytes()[:100])
    losses(model, batch, [0, 1])
    assert first.stat().st_size == second.stat().st_size
    assert model.fixed_teacher.cache.hits == 1


def test_evaluations_and_the_pre_pass_add_nothing(cfg, batch, tmp_path):
    model = model_with(cfg, cache_teacher=dict(folder=str(tmp_path)))
    model.teacher.val_step(copy.deepcopy(batch))
    with model.fixed_teacher.forward_context():
        model.teacher.extract_feat(torch.zeros(1, 3, 64, 64))
    assert not list(tmp_path.iterdir())


def test_what_comes_before_the_neck_is_not_kept(cfg):
    recorders = cfg.model.distiller.teacher_recorders
    recorders.stage = dict(type="ModuleOutputs", source="backbone")
    with pytest.raises(WiringError, match=r"the teacher's neck gives .* found one of 'backbone'"):
        model_with(cfg, cache_teacher=True)
    recorders.stage = dict(type="ModuleInputs", source="neck")
    with pytest.raises(WiringError, match="found one of 'neck'"):
        model_with(cfg, cache_teacher=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(budget_gb=0), "budget_gb above 0"),
        (dict(dtype="float16"), "found 10.0 and 'float16'"),
        (dict(size=3), r"out of \['folder', 'budget_gb', 'dtype'\], found \['size'\]"),
    ],
)
def test_wrong_options_are_an_error(cfg, options, message):
    with pytest.raises(ValueError, match=message):
        model_with(cfg, cache_teacher=options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_a_digest_is_that_of_the_image(dtype):
    images = torch.randn(3, 3, 8, 6).to(dtype)
    found = digests(images)
    assert len(set(found)) == 3 and {len(digest) for digest in found} == {32}
    assert digests(images.flip(0)) == found[::-1]
    assert digests(images.to(memory_format=torch.channels_last)) == found
    for changed in (images.flip(-1), images.transpose(0, 1).contiguous().transpose(0, 1) + 1):
        assert not set(digests(changed)) & set(found)
    one = images[:1].clone()
    one[0, 1, 4, 3] *= 1.01
    assert digests(one) != found[:1]


def test_the_folder_is_the_teachers(cfg, batch, tmp_path, teacher_ckpt: Path):
    options = dict(cache_teacher=dict(folder=str(tmp_path)))
    losses(model_with(cfg, **options), batch, [0, 1])
    state = torch.load(teacher_ckpt, weights_only=True)
    state["state_dict"]["backbone.conv1.weight"] *= 1.1
    torch.save(state, tmp_path.with_name("other.pth"))
    cfg.model.teacher_ckpt = str(tmp_path.with_name("other.pth"))
    losses(model_with(cfg, **options), batch, [0, 1])
    assert len(list(tmp_path.iterdir())) == 2
