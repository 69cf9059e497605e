"""Kill a training at random moments, resume it each time, and compare it with one left alone.

Moments lie in the pre-pass, while class centers, checkpoints and exports of the student are
written, and in between. After each kill every file under a final name has to be whole, and those of
an export have to belong together; at the end, weights, connectors, optimizer, class centers and the
exported student have to be the same bits.
"""

from __future__ import annotations

import json
import os
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
from safetensors.torch import load_file

from kd_det.algorithms.checkpoint import STUDENT_PREFIX
from kd_det.centers import ClassCenters
from kd_det.commands import common
from kd_det.export.student import CHECKPOINT, CONFIG, METADATA, WEIGHTS
from kd_det.recipes import load_named

RECIPE = Path("configs/cls/digits/review_nd.py")
EPOCHS = 10  # for each kill in training; one takes about 0.1 s, and a checkpoint follows it
WRITING = ".student*.new-*"  # what an export has before its final name
CENTERS = "class_centers.safetensors"


def main() -> None:
    example = "%(prog)s --kills 30"
    parser = common.make_parser("python benchmarks/kill_and_resume.py", __doc__, example)
    add = parser.add_argument
    add("--kills", type=int, default=30, help="default: %(default)s")
    add("--seed", type=int, default=0, help="of the moments; default: %(default)s")
    add("--root", type=Path, default=Path("work_dirs/kill_and_resume"), help="default: %(default)s")
    args = parser.parse_args()
    if args.root.exists():
        raise FileExistsError(f"{args.root} is there already; remove it or choose another --root")
    moments = random.Random(args.seed)
    kinds = plan(args.kills, moments)
    epochs = EPOCHS * (sum(kind in ("training", "export") for kind in kinds) + 1)
    config = write_config(args.root, "config", configuration(args.root, epochs))

    whole, killed = args.root / "whole", args.root / "killed"
    print("a run that is left alone", flush=True)
    run(config, whole)
    within = 0
    for kill, kind in enumerate(kinds, start=1):
        sign, number, delay = moment(kind, moments)
        before = set(killed.glob(WRITING))
        run(config, killed, sign, number, delay, kind.endswith("export"))
        exporting = bool(set(killed.glob(WRITING)) - before)
        within += exporting
        where = ", while an export is written" if exporting else ""
        print(f"kill {kill} ({kind}): {delay:.2f} s behind {number} x {sign!r}{where}", flush=True)
        check_files(killed)
    run(config, killed)
    check_files(killed)
    compare(whole, killed, epochs)
    print(
        f"{args.kills} kills, {within} of them while an export was written, changed nothing: the "
        "same bits as without them"
    )


def plan(kills: int, moments: random.Random) -> list[str]:
    """What each kill is to hit."""
    early = max(1, kills // 6)
    exports = max(1, (kills - early) // 3)
    at_end = exports // 3
    middle = ["export"] * (exports - at_end) + ["training"] * (kills - early - exports)
    moments.shuffle(middle)
    # The first ones while there is no checkpoint, the last ones when training is done.
    return ["pre-pass"] * early + middle + ["last export"] * at_end


def moment(kind: str, moments: random.Random) -> tuple[str, int, float]:
    """A text in the log, how many times it comes, and the seconds to wait after it."""
    if kind == "pre-pass":
        return "Distillation:", 1, moments.uniform(0, 0.8)
    if kind == "training":
        return "Epoch(train)", moments.randint(1, 8), moments.uniform(0, 0.2)
    # Each resumed run exports the best one anew; only the line of the last one ends like this.
    sign = "Exporting the student" if kind == "export" else "/student\n"
    return sign, 1, moments.uniform(0, 0.03)


def configuration(root: Path, epochs: int) -> Config:
    from mmengine.registry import DefaultScope
    from mmrazor.registry import MODELS

    cfg = load_named(RECIPE)
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


def run(
    config: Path,
    folder: Path,
    sign: str = "",
    number: int = 0,
    delay: float = 0,
    in_export: bool = False,
) -> None:
    """Train, resuming what is there; kill it ``delay`` s behind the ``number``-th ``sign``.

    With ``in_export``, behind the first file that the export of that line writes.
    """
    command = [sys.executable, "-u", "-m", "kd_det", "train", str(config)]
    command += ["--work-dir", str(folder), "--resume"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        for line in process.stdout:
            lines.append(line)
            number -= sign in line
            if sign and number == 0:
                if in_export:
                    wait_for_export(folder)
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


def wait_for_export(folder: Path) -> None:
    """Return when an export is begun to be written, or after 2 s."""
    before = set(folder.glob(WRITING))  # an earlier kill may have left one
    end = time.monotonic() + 2
    while time.monotonic() < end and not set(folder.glob(WRITING)) - before:
        time.sleep(0.001)


def check_files(folder: Path) -> None:
    """Every file under a final name is whole, and ``last_checkpoint`` points at one."""
    for path in folder.glob("*.pth"):
        try:
            load(path)
        except Exception as error:
            raise RuntimeError(f"{path} is not whole: {error}") from error
    if (folder / CENTERS).exists():
        ClassCenters.load(folder / CENTERS)
    for export in folder.glob("student*"):
        check_export(export)
    last = folder / "last_checkpoint"
    if last.exists() and not Path(text := os.fsdecode(last.read_bytes())).is_file():
        raise FileNotFoundError(f"{last} points at {text!r}, which is not there")


def check_export(folder: Path) -> None:
    """All files are there and whole, of one export, and with the weights of its checkpoint."""
    there = {path.name for path in folder.iterdir()}
    if there != {CONFIG, CHECKPOINT, WEIGHTS, METADATA}:
        raise RuntimeError(f"{folder} is not whole: found {sorted(there)}")
    exported = load(folder / CHECKPOINT)
    metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    expected = {WEIGHTS: exported["state_dict"], CONFIG: exported["meta"]["cfg"]}
    found = {
        WEIGHTS: load_file(folder / WEIGHTS),
        CONFIG: (folder / CONFIG).read_text(encoding="utf-8"),
    }
    expected[METADATA] = {key: exported["meta"][key] for key in metadata}
    found[METADATA] = metadata
    checkpoint = folder.parent / metadata["checkpoint"]
    if checkpoint.exists():  # a kill may come when it is replaced and its export not yet
        state = load(checkpoint)["state_dict"]
        found[CHECKPOINT] = exported["state_dict"]
        expected[CHECKPOINT] = {
            name: state[f"{STUDENT_PREFIX}{name}"] for name in found[CHECKPOINT]
        }
    for name in found:
        if not same(found[name], expected[name]):
            raise RuntimeError(f"{folder / name} is of another export than {CHECKPOINT} there")


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
    a, b = (load(folder / "student" / CHECKPOINT) for folder in (whole, killed))
    if not same((a["state_dict"], a["meta"]["cfg"]), (b["state_dict"], b["meta"]["cfg"])):
        raise RuntimeError("the killed run differs in its exported student")
    if left := sorted(path.name for path in killed.glob(".*") if path.suffix != ".lock"):
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
    common.run(main, "its folder (--root) has to be removed before the same command starts over")
