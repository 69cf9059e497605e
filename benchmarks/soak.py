"""Train a tiny model for many iterations and see whether memory, files or records grow."""

from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook

from kd_det.commands import common
from kd_det.recipes import load_named

RECIPE = Path(__file__).parents[1] / "configs" / "cls" / "digits" / "review_nd.py"
PAGE = os.sysconf("SC_PAGE_SIZE")


class Watch(Hook):
    """Resident memory, open files and kept records, every ``interval`` iterations."""

    priority = "LOWEST"

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self.seen: list[tuple[int, float, int, int]] = []

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if runner.iter % self.interval == 0:
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
            records = sum(
                len(recorder.data_buffer)
                for side in ("student_recorders", "teacher_recorders")
                for recorder in getattr(runner.model.distiller, side).recorders.values()
            )
            files = len(os.listdir("/proc/self/fd"))
            self.seen.append((runner.iter, pages * PAGE / 2**20, files, records))


def main() -> None:
    example = "%(prog)s --iterations 2000"
    parser = common.make_parser("python benchmarks/soak.py", __doc__, example)
    parser.add_argument("--iterations", type=int, default=2000, help="default: %(default)s")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        watch = soak(args.iterations, Path(folder), max(1, args.iterations // 100))
    print(report(watch))


def soak(iterations: int, folder: Path, interval: int) -> Watch:
    """Train the recipe with a random teacher; evaluation and checkpoints included."""
    from mmengine.registry import DefaultScope
    from mmengine.runner import Runner
    from mmrazor.registry import MODELS

    cfg = load_named(RECIPE)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        torch.save(MODELS.build(cfg.model.teacher).state_dict(), folder / "teacher.pth")
    cfg.model.teacher_ckpt = str(folder / "teacher.pth")
    cfg.train_cfg.update(max_epochs=iterations // 7, val_interval=20)
    cfg.default_hooks.checkpoint.interval = 20
    cfg.work_dir = str(folder)
    cfg.log_level = "WARNING"
    runner = Runner.from_cfg(cfg)
    watch = Watch(interval)
    runner.register_hook(watch)
    runner.train()
    return watch


def report(watch: Watch) -> str:
    """Slope of memory over the second half, when caches are full."""
    seen = np.array(watch.seen)
    half = seen[len(seen) // 2 :]
    slope = np.polyfit(half[:, 0], half[:, 1], 1)[0] * 1000
    return (
        f"{len(seen)} looks in {int(seen[-1, 0])} iterations: memory {seen[0, 1]:.0f} MiB at "
        f"first, {seen[-1, 1]:.0f} MiB at last, in the second half {slope:+.2f} MiB per 1000 "
        f"iterations; open files {int(seen[0, 2])} to {int(seen[-1, 2])}; records kept "
        f"{int(seen[:, 3].max())}"
    )


if __name__ == "__main__":
    common.run(main)
