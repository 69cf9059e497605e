"""Let every detector of mmdet's zoo teach itself, and others: one step, one evaluation.

Random weights, images of 128 pixels. Each outcome is a file in the work directory, so that the
sweep goes on where it was; the table of all is written when it ends.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from _zoo import SIDE, Outcome, make_data, outcome_file, try_pair

from kd_det.commands import common
from kd_det.report.machine import software

Pair = tuple[str, str]
# Folders of mmdet's configs with parts of configs alone.
PARTS_OF_CONFIGS = ("_base_", "common")
STUDENTS = (
    "faster_rcnn/faster-rcnn_r50_fpn_1x_coco",
    "retinanet/retinanet_r18_fpn_1x_coco",
    "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco",
    "atss/atss_r50_fpn_1x_coco",
    "gfl/gfl_r50_fpn_1x_coco",
    "rtmdet/rtmdet_s_8xb32-300e_coco",
    "yolox/yolox_s_8xb8-300e_coco",
    "dino/dino-4scale_r50_8xb2-12e_coco",
    "detr/detr_r18_8xb2-500e_coco",
)
TEACHERS = (
    "cascade_rcnn/cascade-rcnn_x101-32x4d_fpn_1x_coco",
    "mask_rcnn/mask-rcnn_r101_fpn_1x_coco",
    "retinanet/retinanet_r101_fpn_1x_coco",
    "atss/atss_r101_fpn_1x_coco",
    "tood/tood_r101_fpn_ms-2x_coco",
    "rtmdet/rtmdet_m_8xb32-300e_coco",
    "dino/dino-4scale_r50_8xb2-24e_coco",
)
CROSS = list(product(STUDENTS, TEACHERS))[:60]


def main() -> None:
    example = "%(prog)s --work-dir work_dirs/zoo --sample 0.1"
    parser = common.make_parser("python benchmarks/zoo_sweep.py", __doc__, example)
    add = parser.add_argument
    add("--work-dir", type=Path, default=Path("work_dirs/zoo"), help="default: %(default)s")
    add("--sample", type=float, default=1.0,
        help="share of the configs of each folder, one at least (default: all)")  # fmt: skip
    add("--only", default="", help="configs whose name has this in it")
    add("--limit", type=int, default=300, help="seconds for a pair (default: %(default)s)")
    add("--memory", type=float, default=6.0,
        help="GB; of larger ones shapes alone are computed (default: %(default)s)")  # fmt: skip
    add("--batch", type=int, default=10, help="pairs of a process (default: %(default)s)")
    add("--again", action="store_true", help="try those again that failed")
    add("--table", type=Path, help="where the table goes (default: the work directory)")
    add("--pairs", nargs="*", help=argparse.SUPPRESS)  # in a process of its own
    args = parser.parse_args()
    args.work_dir.mkdir(parents=True, exist_ok=True)
    if args.pairs:
        run(args.pairs, args)
        return
    if not (args.work_dir / "data").is_dir():
        make_data(args.work_dir / "data")
    sweep([p for p in list_pairs(args.sample) if args.only in "".join(p)], args)
    table = args.table or args.work_dir / "zoo.md"
    text = report(read(args.work_dir)).replace(str(args.work_dir), "WORK")
    table.write_text(text, encoding="utf-8")
    print(f"The table is {table}")


def list_pairs(share: float) -> list[Pair]:
    """All configs of mmdet with themselves, then pairs that cross kinds."""
    from mmengine.utils import get_installed_path

    root = Path(get_installed_path("mmdet"), ".mim", "configs")
    folders: dict[str, list[str]] = {}
    for path in sorted(root.glob("*/*.py")):
        if path.parent.name not in PARTS_OF_CONFIGS:
            name = path.relative_to(root).with_suffix("").as_posix()
            folders.setdefault(path.parent.name, []).append(name)
    chosen = [
        name
        for names in folders.values()
        for name in names[:: max(1, round(len(names) / max(1, round(share * len(names)))))]
    ]
    cross = CROSS[:: max(1, round(1 / share))]
    return [*((name, name) for name in chosen), *cross]


def sweep(pairs: Sequence[Pair], args: argparse.Namespace) -> None:
    """Try pairs that have no outcome yet, some in each process; one that dies costs one pair."""
    todo = [p for p in pairs if not _is_done(args.work_dir, p, args.again)]
    print(f"{len(pairs)} pairs, {len(todo)} to do", flush=True)
    while todo:
        batch = todo[: args.batch]
        words = ["--work-dir", args.work_dir, "--limit", args.limit, "--memory", args.memory]
        words += ["--pairs", *(",".join(p) for p in batch)]
        start = time.time()
        with (args.work_dir / "log.txt").open("ab") as log:
            command = [sys.executable, __file__, *map(str, words)]
            process = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                process.wait(timeout=(args.limit + 60) * len(batch))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        left = [p for p in batch if not _written_since(args.work_dir, p, start)]
        if left:  # the process ended within this one
            died = Outcome(*left[0], reason=f"the process ended with {process.returncode}")
            died.write(args.work_dir)
            left = left[1:]
        todo = [*left, *todo[len(batch) :]]
        print(f"{len(todo)} to do", flush=True)


def run(pairs: Sequence[str], args: argparse.Namespace) -> None:
    """Try pairs in this process."""
    import warnings

    import torch

    from kd_det import compat

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    compat.activate()
    for each in pairs:
        student, teacher = each.split(",")
        found = try_pair(student, teacher, args.work_dir / "data", args.limit, args.memory)
        found.write(args.work_dir)


def read(folder: Path) -> list[Outcome]:
    """All outcomes."""
    return [Outcome(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]


def report(outcomes: Sequence[Outcome]) -> str:
    """Tables of outcomes by family, and of the reasons."""
    own = [x for x in outcomes if x.student == x.teacher]
    detectors = [x for x in own if x.family]
    cross = [x for x in outcomes if x.student != x.teacher]
    good = sum(x.outcome in ("passed", "built") for x in detectors)
    lines = [
        "# Every detector of mmdet teaches itself, and others",
        "",
        f"Made by `benchmarks/zoo_sweep.py`: random weights, images of {SIDE} pixels, the method "
        "`robust`, a training step and an evaluation. *Shapes alone*: larger than the memory that "
        "was allowed, built without values. *Refused*: in a sentence, before training.",
        "",
        f"Of {len(own)} configs {len(own) - len(detectors)} are no detectors of fixed classes in "
        "images: trackers, those that are asked in words, segmenters without boxes, those of "
        "proposals from files, wrappers (distillers, semi-supervised, Detectron2's), and configs "
        "whose base mmdet lacks. "
        f"Of the {len(detectors)} others {good} teach themselves "
        f"({good / max(1, len(detectors)):.1%}).",
        "",
        software(),
        "",
        "| family | pairs | passed | shapes alone | refused | failed |",
        "|---|---|---|---|---|---|",
    ]
    for name, chosen in (("teaches itself", own), ("is taught by others", cross)):
        for family in sorted({x.family for x in chosen}):
            lines.append(
                _row(
                    f"{family or 'no detector'}, {name}", [x for x in chosen if x.family == family]
                )
            )
        lines.append(_row(f"all that {name}", chosen))
    for outcome in ("refused", "failed"):
        reasons: dict[str, list[str]] = {}
        for x in outcomes:
            if x.outcome == outcome:
                pair = x.student if x.student == x.teacher else f"{x.student} from {x.teacher}"
                reasons.setdefault(_reason(x), []).append(pair)
        lines += ["", f"## {outcome.capitalize()}", ""]
        lines += ["| pairs | reason | which |", "|---|---|---|"] if reasons else ["None."]
        for reason, pairs in sorted(reasons.items(), key=lambda item: -len(item[1])):
            lines.append(f"| {len(pairs)} | {reason} | {', '.join(pairs)} |")
    return "\n".join(lines) + "\n"


def _reason(found: Outcome) -> str:
    """The sentence without the names of both sides, for one cell of a table."""
    text = " ".join(found.reason.replace("|", "\\|").split())
    text = re.sub(r"/\S+?/\.mim/configs/", "mmdet/", text)  # a folder of this machine
    text = re.sub(r"mmdet::\S+?\.py", "CONFIG", text)
    return re.sub(r"^(CONFIG cannot teach CONFIG: )+", "", text)[:400]


def _row(name: str, found: Sequence[Outcome]) -> str:
    count: Counter[Any] = Counter(x.outcome for x in found)
    cells = [name, len(found), *(count[x] for x in ("passed", "built", "refused", "failed"))]
    return f"| {' | '.join(map(str, cells))} |"


def _is_done(folder: Path, pair: Pair, again: bool) -> bool:
    path = outcome_file(folder, *pair)
    return path.is_file() and not (again and json.loads(path.read_text())["outcome"] == "failed")


def _written_since(folder: Path, pair: Pair, start: float) -> bool:
    path = outcome_file(folder, *pair)
    return path.is_file() and path.stat().st_mtime >= start - 1


if __name__ == "__main__":
    main()
