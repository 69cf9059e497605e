"""From nothing to a distilled detector, on a laptop: data, teacher, two students, a report."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from _runs import CONFIGS, recipes
from _steps import Step
from mmengine.config import Config

import kd_det  # noqa: F401  (mends the stack)
from kd_det.commands import common
from kd_det.recipes import load_recipe, locate

DATA = Path("data/digits-coco")
TEACHER_SEED = 0


def main() -> None:
    args = parse_args()
    print("Each step prints the command that it runs; all of them can be run by hand.")
    root = Path(args.root)
    teacher, centers = teacher_steps(root)
    plain, distilled = student_steps(root, args.method, args.seed, teacher, centers)
    for step in (*teacher.inputs, *distilled.inputs, plain, distilled):
        step.run()
    report = report_step(root, [teacher, plain, distilled])
    report.run()
    page, numbers = report.results
    print_table(metrics_by_role(numbers))
    print(f"\nThe distilled student is {checkpoint(distilled)}. Next: README.md, 'Your own data'.")
    print(f"Report: {page}, its numbers: {numbers}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example:\n  python tools/demo.py\n\nStop it at any time: the same command goes "
        "on where it was.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--method",
        choices=recipes(),
        default="robust",
        help="of configs/_base_/methods (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of both students (default: 0)")
    parser.add_argument("--root", default="work_dirs/demo", help="default: %(default)s")
    return parser.parse_args()


def teacher_steps(root: Path) -> tuple[Step, Step]:
    """The trained teacher, with the data as its input, and its class centers."""
    data = Step("data", ["tools/make_digits_coco.py", "--root", str(DATA)], root / "data")
    data.results = [DATA / "annotations" / f"instances_{part}.json" for part in ("train", "val")]
    teacher = _train("teacher", CONFIGS / "teacher.py", root / "teacher", TEACHER_SEED, [data])
    config = CONFIGS / "review_nd_kd.py"
    folder = root / "centers"
    centers = Step(
        "centers",
        ["tools/collect_centers.py", str(config), "--work-dir", str(folder)]
        + ["--cfg-options", f"model.teacher_ckpt={checkpoint(teacher)}"],
        folder,
        str(config),
        [teacher],
        results=[folder / "class_centers.safetensors"],
    )
    return teacher, centers


def student_steps(
    root: Path, method: str, seed: int, teacher: Step, centers: Step
) -> tuple[Step, Step]:
    """The same student with the same budget and seed, without and with the teacher."""
    plain = _train("plain", CONFIGS / "plain.py", root / f"plain_seed{seed}", seed, teacher.inputs)
    config, chosen = locate(CONFIGS / f"{method}.py")
    options = [f"model.teacher_ckpt={checkpoint(teacher)}"]
    inputs = [teacher]
    if any(
        hook.type == "kd_det.ClassCenterHook"
        for hook in load_recipe(config, chosen).get("custom_hooks", [])
    ):
        options.append(f"custom_hooks.0.file={centers.folder / 'class_centers.safetensors'}")
        inputs.append(centers)
    distilled = _train("distilled", config, root / f"{method}_seed{seed}", seed, inputs, options)
    if chosen is not None:
        distilled.command[2:2] = ["--method", chosen]
    return plain, distilled


def _train(
    name: str,
    config: Path,
    folder: Path,
    seed: int,
    inputs: list[Step],
    options: Sequence[str] = (),
) -> Step:
    command = ["tools/train.py", str(config), "--work-dir", str(folder), "--cfg-options"]
    command += [f"randomness.seed={seed}", *options]
    step = Step(name, command, folder, str(config), inputs, resume="--resume")
    step.results = [checkpoint(step)]
    return step


def checkpoint(step: Step) -> Path:
    """The last checkpoint of a training step."""
    return step.folder / f"epoch_{Config.fromfile(step.config).train_cfg.max_epochs}.pth"


def report_step(root: Path, runs: list[Step]) -> Step:
    """The page on all runs; evaluates their models."""
    page = root / "report.html"
    command = ["tools/report.py", *(str(run.folder) for run in runs), "--out", str(page)]
    results = [page, page.with_suffix(".json")]
    return Step("report", command, root / "report", inputs=runs, results=results)


def metrics_by_role(numbers: Path) -> dict[str, dict[str, float]]:
    """COCO metrics in a report's numbers, without the metric's prefix."""
    return {
        run["role"]: {k.removeprefix("coco/"): v for k, v in run["metrics"].items()}
        for run in json.loads(numbers.read_text())
    }


def print_table(result: dict[str, dict[str, float]]) -> None:
    columns = ("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75")
    # A model that finds nothing has no metrics.
    result = {name: {c: metrics.get(c, 0.0) for c in columns} for name, metrics in result.items()}
    print(f"\n{'':<10}" + "".join(f"{c:>13}" for c in columns))
    for name, metrics in result.items():
        print(f"{name:<10}" + "".join(f"{metrics[c]:>13.3f}" for c in columns))
    gain = result["distilled"]["bbox_mAP"] - result["plain"]["bbox_mAP"]
    gap = result["teacher"]["bbox_mAP"] - result["plain"]["bbox_mAP"]
    print(f"{'gain':<10}{gain:>+13.3f}" + (f"   {gain / gap:.0%} of the gap" if gap > 0 else ""))


if __name__ == "__main__":
    if not CONFIGS.is_dir():
        sys.exit("run this from the root of the repository: python tools/demo.py")
    common.run(main, common.GOES_ON)
