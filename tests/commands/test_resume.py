"""``--resume`` goes on with the same config, follows a new schedule, and refuses other changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from small import ROOT

from kd_det.algorithms.checkpoint import CheckpointError
from kd_det.commands.resume import check_resume, compare_configs
from kd_det.config_options import merge_options
from kd_det.literals import read_assignments
from kd_det.recipes import load_named
from kd_det.report.scalars import read_scalars


@pytest.fixture
def work(trained, tmp_path) -> Path:
    """A copy of a work directory of one epoch of two iterations."""
    folder = Path(shutil.copytree(trained, tmp_path / "work"))
    (folder / "last_checkpoint").write_text(str(folder / "epoch_1.pth"))
    return folder


@pytest.fixture
def resume(tool, work, recipe):
    """``resume("key=value", ...)`` goes on, to epoch 2 if nothing else is said."""

    def run(*options: str, flags: tuple = (), checkpoint: tuple = ()) -> None:
        places = ["--work-dir", work, "--resume", *checkpoint, *flags]
        tool("train", recipe, *places, "--cfg-options", "train_cfg.max_epochs=2", *options)

    return run


def rates(work: Path) -> dict[int, float]:
    """The student's learning rate by iteration, of all starts."""
    return read_scalars(work)["lr"]


def refused(resume, capsys, *options: str, **arguments: tuple) -> str:
    with pytest.raises(SystemExit) as caught:
        resume(*options, **arguments)
    assert "Traceback" not in capsys.readouterr().err
    return str(caught.value.code)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("optim_wrapper.optimizer.lr=0.5", "optim_wrapper.optimizer.lr 0.002, now 0.5"),
        ("model.distiller.distill_losses.loss_kd.loss_weight=9.", "model.distiller.distill_losses"),
        ("train_dataloader.batch_size=2", "train_dataloader.batch_size 4, now 2"),
        ("custom_hooks=[]", "custom_hooks a list of "),
    ],
)
def test_changes_are_refused_before_anything_is_written(resume, work, capsys, option, told):
    before = files(work)
    message = refused(resume, capsys, option)
    assert f"cannot resume {work}/epoch_1.pth, its config was another: {told}" in message
    assert "another --work-dir" in message and "--allow-changes" in message
    assert files(work) == before


def test_a_new_schedule_acts(resume, work):
    """The rates are those of a run that had it from the beginning."""
    schedule = (
        "param_scheduler=[dict(type='LinearLR', start_factor=0.1, begin=0, end=3, by_epoch=False), "
        "dict(type='MultiStepLR', milestones=[2], gamma=0.1, by_epoch=True)]"
    )
    # What cannot matter is no change.
    ignored = [
        "train_dataloader.num_workers=1",
        "train_cfg.val_interval=5",
        "default_hooks.checkpoint.interval=3",
    ]
    resume(schedule, "train_cfg.max_epochs=3", *ignored)
    base = 0.002
    expected = {3: base, 4: base, 5: base / 10, 6: base / 10}
    found = rates(work)
    assert {step: found[step] for step in expected} == pytest.approx(expected)


def test_allowed_changes_act(resume, work, capsys):
    resume("optim_wrapper.optimizer.lr=0.5", flags=("--allow-changes",))
    found = rates(work)
    assert found[3] / found[1] > 100
    assert "optim_wrapper.optimizer.lr 0.002, now 0.5" in capsys.readouterr().out


def test_other_weights_are_refused_even_so(resume, capsys):
    option = "model.architecture.rpn_head.feat_channels=32"
    message = refused(resume, capsys, option, flags=("--allow-changes",))
    assert "this config has other weights: architecture.rpn_head." in message
    assert "load_from=" in message


def test_weights_alone_are_refused(resume, teacher_ckpt, capsys):
    message = refused(resume, capsys, checkpoint=(teacher_ckpt,))
    assert f"cannot resume {teacher_ckpt}: expected a checkpoint of a training, found no" in message
    assert "optimizer, message_hub, meta.epoch, meta.iter. To start from its weights: " in message


def checkpoint(path: Path, **meta: str) -> Config:
    content = dict(state_dict={}, optimizer={}, message_hub={})
    torch.save(dict(content, meta=dict(epoch=1, iter=2, **meta)), path)
    return Config(dict(load_from=str(path), resume=True, work_dir=str(path.parent), model={}))


def test_a_config_in_a_checkpoint_is_not_executed(tmp_path, capsys):
    mark = tmp_path / "executed"
    code = f"open({str(mark)!r}, 'w').close()\nmodel = dict()"
    resumed = check_resume(checkpoint(tmp_path / "a.pth", cfg=code))
    assert resumed.changes == [] and not mark.exists()
    assert "does not say with which config it was made" in capsys.readouterr().out
    with pytest.raises(CheckpointError, match="which MMEngine would execute"):
        check_resume(checkpoint(tmp_path / "b.pth", config=code))


def test_other_files_are_refused_and_without_a_checkpoint_it_begins(tmp_path):
    cfg = checkpoint(tmp_path / "a.pth")
    (tmp_path / "a.pth").write_text("not at all")
    with pytest.raises(CheckpointError, match="found a file that torch cannot read"):
        check_resume(cfg)
    cfg.load_from = None
    assert check_resume(cfg) is None


@pytest.mark.parametrize("name", ["digits/robust", "cls/digits/review_nd", "frcnn_r101_r18_kd"])
def test_a_config_equals_its_text(name):
    """What a Runner keeps of it in checkpoints."""
    cfg = load_named(ROOT / "configs" / f"{name}.py")
    object.__setattr__(cfg, "_format_python_code", False)
    assert not list(compare_configs(read_assignments(cfg.pretty_text), cfg.to_dict()))


def test_the_work_directory_may_move():
    def cfg(folder: str) -> dict:
        return dict(work_dir=folder, custom_hooks=[dict(type="A", file=f"{folder}/x")], model={})

    assert not list(compare_configs(cfg("a"), cfg("b")))
    changed = cfg("b")
    merge_options(found := Config(changed), {"custom_hooks.0.file": "c/x"})
    assert [key for key, _ in compare_configs(cfg("a"), found.to_dict())] == ["custom_hooks.0.file"]
