"""Kill a training at random moments, resume it each time, and compare it with one left alone.

Moments lie in the pre-pass, while class centers and checkpoints are written, and in between. After
each kill every file under a final name has to be whole; at the end, weights, connectors, optimizer
and class centers have to be the same bits.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from _trainings import write_config
from mmengine.config import Config

from kd_det import cli
from kd_det.centers import ClassCenters

RECIPE = Path("configs/cls/digits/review_nd.py")
EPOCHS = 10  # for each kill in training; one takes about 0.1 s, and a checkpoint follows it
CENTERS = "class_centers.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example:\n  python tools/kill_and_resume.py --kills 30",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--kills", type=int, default=30, help="default: %(default)s")
    add("--seed", type=int, default=0, help="of the moments; default: %(default)s")
    add("--root", type=Path, default=Path("work_dirs/kill_and_resume"), help="default: %(default)s")
    args = parser.parse_args()
    if args.root.exists():
        raise FileExistsError(f"{args.root} is there already; remove it or choose another --root")
    moments = random.Random(args.seed)
    in_prepass = max(1, args.kills // 6)
    epochs = EPOCHS * (args.kills - in_prepass + 1)
    config = write_config(args.root, "config", configuration(args.root, epochs))

    whole, killed = args.root / "whole", args.root / "killed"
    print("a run that is left alone", flush=True)
    run(config, whole)
    for kill in range(args.kills):
        # The first ones about the pre-pass, while there is no checkpoint.
        early = kill < in_prepass
        sign, number = ("Distillation:", 1) if early else ("Epoch(train)", moments.randint(1, 8))
        delay = moments.uniform(0, 0.8 if early else 0.2)
        run(config, killed, sign, number, delay)
        print(f"kill {kill + 1}: {delay:.2f} s behind {number} x '{sign}'", flush=True)
        check_files(killed)
    run(config, killed)
    compare(whole, killed, epochs)
    print(f"{args.kills} kills changed nothing: the same bits as without them")


def configuration(root: Path, epochs: int) -> Config:
    from mmengine.registry import DefaultScope
    from mmrazor.registry import MODELS

    cfg = Config.fromfile(RECIPE)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        teacher = MODELS.build(cfg.model.teacher)
    root.mkdir(parents=True)
    torch.save({"state_dict": teacher.state_dict()}, root / "teacher.pth")
    cfg.model.teacher_ckpt = str(root / "teacher.pth")
    cfg.train_cfg.update(max_epochs=epochs, val_interval=5)
    cfg.param_scheduler.T_max = epochs
    cfg.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=1, save_best="accuracy/top1")
    return cfg


def run(config: Path, folder: Path, sign: str = "", number: int = 0, delay: float = 0) -> None:
    """Train, resuming what is there; kill it ``delay`` s behind the ``number``-th ``sign``."""
    command = [sys.executable, "-u", "tools/train.py", str(config)]
    command += ["--work-dir", str(folder), "--resume"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        for line in process.stdout:
            lines.append(line)
            number -= sign in line
            if sign and number == 0:
                time.sleep(delay)
                process.send_signal(signal.SIGKILL)
                break
        code = process.wait()
    finally:
        process.kill()
    expected = -signal.SIGKILL if sign else 0
    if code != expected:
        raise RuntimeError(
            f"expected the training to end with exit code {expected}, found {code}:\n"
            + "".join(lines[-15:])
        )


def check_files(folder: Path) -> None:
    """Every file under a final name is whole, and ``last_checkpoint`` points at one."""
    for path in folder.glob("*.pth"):
        try:
            load(path)
        except Exception as error:
            raise RuntimeError(f"{path} is not whole: {error}") from error
    if (folder / CENTERS).exists():
        ClassCenters.load(folder / CENTERS)
    last = folder / "last_checkpoint"
    if last.exists() and not Path(last.read_text()).is_file():
        raise FileNotFoundError(f"{last} points at {last.read_text()!r}, which is not there")


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def compare(whole: Path, killed: Path, epochs: int) -> None:
    a, b = (load(folder / f"epoch_{epochs}.pth") for folder in (whole, killed))
    for part in ("state_dict", "optimizer", "param_schedulers"):
        if not same(a[part], b[part]):
            raise RuntimeError(f"the killed run differs in its {part}")
    centers = [ClassCenters.load(folder / CENTERS) for folder in (whole, killed)]
    if not same(*((c.means, c.counts, c.metadata) for c in centers)):
        raise RuntimeError("the killed run differs in its class centers")
    if left := sorted(path.name for path in killed.glob(".*.pth.*")):
        raise RuntimeError(f"files under temporary names were left: {left}")


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


if __name__ == "__main__":
    cli.run(main)
