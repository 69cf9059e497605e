"""Trainings as steps, and what they logged."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from mmengine.config import Config

from kd_det.commands.steps import Step, StepError, ended_by_sigterm
from kd_det.files import write_atomically
from kd_det.report.scalars import read_scalars

Key = TypeVar("Key")


def training(root: Path, name: str, cfg: Config, inputs: list[Step]) -> Step:
    """The training of a config, written to ``root``; all epochs of it can be resumed."""
    folder = root / name
    config = write_config(root, name, cfg)
    command = ["-m", "kd_det", "train", str(config), "--work-dir", str(folder)]
    step = Step(name, command, folder, str(config), inputs, resume="--resume")
    step.results = [folder / f"epoch_{cfg.train_cfg.max_epochs}.pth"]
    return step


def write_config(root: Path, name: str, cfg: Config) -> Path:
    path = root / "configs" / f"{name}.py"
    # Not cfg.dump(): formatting the text takes seconds, and there are many.
    lines = [f"{key} = {value!r}\n" for key, value in cfg.to_dict().items()]
    write_atomically(path, "".join(lines).encode())
    return path


def checkpoint(step: Step) -> Path:
    """The last checkpoint of a training."""
    return step.results[0]


def final(step: Step, metric: str) -> float:
    """The metric that a training logged last."""
    found = read_scalars(step.folder).get(metric)
    if not found:
        raise RuntimeError(f"no evaluation was logged in {step.folder}, or none that found objects")
    return found[max(found)]


def run_and_write(
    run: Callable[[], None],
    runs: Mapping[Key, Step],
    metric: str,
    table: Callable[[dict[Key, float]], str],
    out: Path,
) -> None:
    """Run ``runs`` and write the table of what is done, also after a stop.

    Args:
        run: Runs them.
        runs: By what they are called in the table.
        metric: Of the table.
        table: Writes the text about the results of the runs that are done.
        out: File of the table.
    """
    try:
        run()
    finally:
        done = {key: final(step, metric) for key, step in runs.items() if step.done}
        if done:
            text = table(done)
            write_atomically(out, text.encode())
            print(f"\n{text}\nTable written to {out}")


def run_all(steps: Iterable[Step], jobs: int) -> None:
    """Run steps side by side, each with its share of the cores, or with OMP_NUM_THREADS threads.

    Raises:
        StepError: If steps failed, after all others ran; names them.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    steps, failed = list(steps), []
    pool = ThreadPoolExecutor(jobs)
    try:
        with ended_by_sigterm():
            for step, future in [(step, pool.submit(step.run)) for step in steps]:
                try:
                    future.result()
                except StepError as error:
                    print(error, flush=True)
                    failed.append(step.name)
    except BaseException:  # Ctrl-C: what runs is stopped, what waits is not begun
        pool.shutdown(wait=False, cancel_futures=True)
        for step in steps:
            step.stop()
        raise
    finally:
        pool.shutdown()
    if failed:
        raise StepError(f"{len(failed)} of {len(steps)} runs failed: {', '.join(failed)}")
