"""A crash while a checkpoint is written leaves the one before it, and no half of a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.hooks import CheckpointHook
from mmengine.runner import find_latest_checkpoint

LEFT_OUT = {
    "checkpoint_files": """
import tempfile
from pathlib import Path
from mmengine.hooks import CheckpointHook
folder = Path(tempfile.mkdtemp())
hook = CheckpointHook(max_keep_ckpts=1)
class Runner:
    work_dir = str(folder)
    class message_hub:
        update_info = staticmethod(lambda *a: None)
    def save_checkpoint(self, folder, name, *a, **k):
        kept = sorted(p.name for p in Path(folder).glob("*.pth"))
        assert name == "epoch_1.pth" or kept == ["epoch_1.pth"], "epoch_1 is gone"
        (Path(folder) / name).write_text("")
from collections import deque
from mmengine.fileio import get_file_backend
hook.out_dir, hook.keep_ckpt_ids = str(folder), deque([], 1)
hook.file_backend = get_file_backend(str(folder))
for step in (1, 2):
    hook._save_checkpoint_with_step(Runner(), step, {})
"""
}


def test_breaks_without_the_patch(left_out):
    assert left_out["checkpoint_files"] == "AssertionError: epoch_1 is gone"


def test_a_file_that_cannot_be_finished_is_not_there(tmp_path: Path):
    from mmengine.fileio import get_file_backend

    backend = get_file_backend(str(tmp_path))
    backend.put(b"old", str(tmp_path / "file"))
    backend.put_text("text", str(tmp_path / "text"))
    assert (tmp_path / "text").read_text() == "text"
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
import kd_det
from mmengine.fileio import get_file_backend
get_file_backend({str(tmp_path)!r}).put(b"x" * 2000, {str(tmp_path / "file")!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"OSError: [Errno 27] File too large: '{tmp_path / 'file'}'" in done.stderr
    assert (tmp_path / "file").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "text"]


class Crash(RuntimeError):
    pass


@pytest.fixture
def make_runner(tmp_path: Path):
    from mmengine.config import Config
    from small import runner
    from small_cls import CLS

    def make(name: str, **options: object):
        cfg = Config.fromfile(CLS / "digits" / "plain.py")
        object.__setattr__(cfg, "_format_python_code", False)
        cfg.train_cfg.update(max_epochs=3, val_interval=1)
        cfg.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=1)
        cfg.work_dir = str(tmp_path / name)
        cfg.merge_from_dict(options)
        return runner(cfg)

    return make


@pytest.mark.parametrize("crash_at", ["epoch_2.pth", "last_checkpoint"])
def test_a_crash_while_writing_leaves_what_can_be_resumed(
    make_runner, tmp_path, monkeypatch, crash_at
):
    from kd_det.compat import checkpoint_files

    write = checkpoint_files.write_atomically

    def crash(path: Path, data: bytes) -> None:
        if path.name == crash_at and (tmp_path / "run" / "last_checkpoint").exists():
            raise Crash
        write(path, data)

    monkeypatch.setattr(checkpoint_files, "write_atomically", crash)
    with pytest.raises(Crash):
        make_runner("run").train()
    monkeypatch.undo()
    last = find_latest_checkpoint(str(tmp_path / "run"))
    assert last is not None and torch.load(last, weights_only=True)["meta"]["epoch"] == 1
    resumed = make_runner("run", resume=True)
    resumed.train()
    assert resumed.epoch == 3
    assert find_latest_checkpoint(str(tmp_path / "run")) == str(tmp_path / "run" / "epoch_3.pth")


def test_only_as_many_are_kept_as_asked_for(make_runner, tmp_path):
    run = make_runner("run", **{"default_hooks.checkpoint.save_best": "accuracy/top1"})
    (tmp_path / "run" / ".epoch_9.pth.abcdefgh").write_bytes(b"what a kill left")
    run.train()
    files = sorted(p.name for p in (tmp_path / "run").glob("*.pth*"))
    assert len(files) == 2 and files[1] == "epoch_3.pth" and files[0].startswith("best_")
    assert not list((tmp_path / "run").glob(".epoch*"))


def test_a_best_checkpoint_of_the_same_name_stays(tmp_path):
    """An epoch that is evaluated again, after a resume, replaces its own file."""
    from types import SimpleNamespace

    from mmengine.fileio import get_file_backend

    hook = CheckpointHook(save_best="score", rule="greater")
    path = tmp_path / "best_score_epoch_1.pth"
    path.write_text("old")
    hook.best_ckpt_path = str(path)
    hook.out_dir, hook.file_backend = str(tmp_path), get_file_backend(str(tmp_path))
    hub = SimpleNamespace(runtime_info={}, update_info=lambda *a: None)
    run = SimpleNamespace(
        epoch=1,
        iter=7,
        message_hub=hub,
        logger=SimpleNamespace(info=lambda *a: None),
        save_checkpoint=lambda folder, filename, **k: Path(folder, filename).write_text("new"),
    )
    hook._save_best_checkpoint(run, dict(score=0.5))
    assert path.read_text() == "new"
