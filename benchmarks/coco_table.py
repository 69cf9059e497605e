"""The published pairs on COCO, trained by the shipped recipes, beside the published figures.

Three Faster R-CNNs with FPN (R101 teaches R18, R101 teaches R50, R50 teaches MobileNetV2), each
student alone and by KD++, ReviewKD and ReviewKD++. Stopped at any time, the same command goes on
where it was; the table holds what is done. Nothing is downloaded that is not asked for.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from _tables import provenance
from _trainings import run_and_write, training, write_config
from mmengine.config import Config
from mmengine.logging import MMLogger

from kd_det import caches
from kd_det.commands import common
from kd_det.commands.steps import Step, run_steps
from kd_det.config_options import merge_options
from kd_det.errors import InvalidInputError
from kd_det.files import file_sha256
from kd_det.pairing.methods import reads_centers
from kd_det.pairing.start_weights import find_downloads
from kd_det.recipes import load_recipe
from kd_det.shipped import find_configs

PROG = "bash benchmarks/coco_table.sh"
EXAMPLE = """%(prog)s --data data/coco --gpus 8 --dry-run
  %(prog)s --pairs frcnn_r101_r18 --methods plain review_nd"""
PAIRS = {
    "frcnn_r101_r18": "R101 teaches R18",
    "frcnn_r101_r50": "R101 teaches R50",
    "frcnn_r50_mv2": "R50 teaches MobileNetV2",
}
METHODS = {"plain": "alone", "kd_nd": "KD++", "review": "ReviewKD", "review_nd": "ReviewKD++"}
METRIC = "coco/bbox_mAP"
# A row without a figure has not been copied from the paper yet.
PUBLISHED = Path(__file__).with_name("coco_published.csv")
Key = tuple[str, str]  # a pair, and a method or "teacher"


@dataclass(frozen=True)
class Setting:
    """What all trainings share.

    Args:
        root: Folder of the runs.
        data: COCO 2017: ``annotations/``, ``train2017/`` and ``val2017/``.
        gpus: Number of processes of a training, one for each GPU.
        seed: Of weights and batches.
        options: Entries to override in the recipes.
    """

    root: Path
    data: Path
    gpus: int
    seed: int
    options: Mapping[str, object]

    @cached_property
    def digests(self) -> list[str]:
        """Of the annotations: other data under the same path makes other results."""
        files = [self.annotations(split) for split in ("train", "val")]
        return [file_sha256(file) for file in files if file.is_file()]

    def annotations(self, split: str) -> Path:
        """The annotation file of a split."""
        return self.data / "annotations" / f"instances_{split}2017.json"

    def config(self, pair: str, method: str) -> Config:
        """A recipe on this data; ``plain`` is its student with all but the teacher."""
        recipe = find_configs() / f"{pair}.py"
        cfg = load_recipe(recipe, "review_nd" if method == "plain" else method)
        for part, split in (("train", "train"), ("val", "val"), ("test", "val")):
            dataset = cfg[f"{part}_dataloader"].dataset
            dataset.update(data_root=f"{self.data}/")
            dataset.ann_file = str(self.annotations(split).relative_to(self.data))
            if part != "train":
                cfg[f"{part}_evaluator"].ann_file = str(self.annotations(split))
        cfg.randomness = dict(seed=self.seed)
        merge_options(cfg, self.options)
        if method == "plain":
            cfg.model = cfg.model.architecture
            cfg.custom_hooks = []
            del cfg.default_hooks["teacher_accuracy"]
        return cfg

    def centers(self, pair: str) -> Step:
        """The teacher's class centers, for both methods that read them."""
        name = f"{pair}_centers"
        config = write_config(self.root, name, self.config(pair, "review_nd"))
        folder = self.root / name
        command = ["-m", "kd_det", "centers", str(config), "--work-dir", str(folder)]
        step = Step(name, command, folder, str(config), digests=self.digests, keep=True)
        step.results = [folder / "class_centers.safetensors"]
        return self._spread(step)

    def run(self, pair: str, method: str, centers: Step) -> Step:
        """A training, which evaluates after each epoch."""
        cfg, inputs = self.config(pair, method), []
        if reads_centers(method):
            cfg.custom_hooks[0].file = str(centers.results[0])
            inputs.append(centers)
        step = training(self.root, f"{pair}_{method}", cfg, inputs)
        step.digests, step.keep = self.digests, True
        return self._spread(step)

    def _spread(self, step: Step) -> Step:
        """The same command in a process for each GPU."""
        if self.gpus > 1:
            launch = ["-m", "torch.distributed.run", "--standalone"]
            launch.append(f"--nproc_per_node={self.gpus}")
            step.command = [*launch, *step.command, "--launcher", "pytorch"]
        return step


def main() -> None:
    args = parse_args()
    # What MMEngine says of each config that it reads is of no interest here.
    MMLogger.get_instance("coco_table", log_level="WARNING")
    caches.install()
    setting = Setting(args.root, args.data, args.gpus, args.seed, args.cfg_options or {})
    centers = {pair: setting.centers(pair) for pair in args.pairs}
    runs = {
        (pair, method): setting.run(pair, method, centers[pair])
        for pair in args.pairs
        for method in args.methods
    }
    steps: list[Step] = []
    for run in runs.values():
        steps += [step for step in (*run.inputs, run) if step not in steps]
    lacking = [*missing_data(setting), *([] if args.download else missing_weights(runs))]
    if args.dry_run:
        for step in steps:
            print(f"[{step.name}] {'done' if step.done else 'to do'}: "
                  f"python {' '.join(step.command)}")  # fmt: skip
        print("", *(lacking or ["Nothing is missing. The same command without --dry-run runs it."]),
              sep="\n")  # fmt: skip
        return
    if lacking and not all(step.done for step in steps):
        raise InvalidInputError("\n".join(lacking))

    def table(results: dict[Key, float]) -> str:
        text = report(args.pairs, args.methods, results, runs)
        return f"Processes: {args.gpus}, seed {args.seed}. {text}"

    run_and_write(lambda: run_steps(steps), runs, METRIC, table, args.out)


def parse_args() -> argparse.Namespace:
    parser = common.make_parser(PROG, __doc__, EXAMPLE)
    add = parser.add_argument
    add("--data", type=Path, default=Path("data/coco"), help="COCO 2017; default: %(default)s")
    add("--root", type=Path, default=Path("work_dirs/coco_table"), metavar="DIR",
        help="folder of the runs; default: %(default)s")  # fmt: skip
    add("--gpus", type=int, default=1, help="processes of a training, one for each GPU; default: "
        "1. The learning rate follows")  # fmt: skip
    add("--pairs", nargs="+", choices=PAIRS, default=list(PAIRS), metavar="PAIR",
        help=f"of {', '.join(PAIRS)}; default: all")  # fmt: skip
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD",
        help=f"of {', '.join(METHODS)}; default: all")  # fmt: skip
    add("--seed", type=int, default=0, help="default: 0")
    add("--out", type=Path, help="the table; default: table.md in --root")
    add("--download", action="store_true", help="allow the download of weights")
    add("--dry-run", action="store_true", help="write the configs, print the steps and what is "
        "missing, train nothing")  # fmt: skip
    common.add_cfg_options(parser, "override entries of all recipes: train_dataloader.batch_size=8")
    args = parser.parse_args()
    args.out = args.out or args.root / "table.md"
    return args


def missing_data(setting: Setting) -> list[str]:
    """A line on the parts of COCO that are not there."""
    parts = [setting.annotations(split) for split in ("train", "val")]
    parts += [setting.data / f"{split}2017" for split in ("train", "val")]
    lacking = [str(part.relative_to(setting.data)) for part in parts if not part.exists()]
    if not lacking:
        return []
    return [
        f"missing in {setting.data}: {', '.join(lacking)}; COCO 2017 is at "
        "https://cocodataset.org/#download, and --data names its folder"
    ]


def missing_weights(runs: Mapping[Key, Step]) -> list[str]:
    """A line for each checkpoint of a teacher or a backbone that a training would download."""
    found: dict[str, str] = {}
    for (pair, _), step in runs.items():
        model = Config.fromfile(step.config).model.to_dict()
        teacher = model.pop("teacher_ckpt", None)
        start = dict(init_cfg=dict(type="Pretrained", checkpoint=str(teacher)))
        parts = {"teacher": start, "student": model}
        for who, part in parts.items():
            for url in [] if step.done else find_downloads(part):
                found.setdefault(url, f"the {who} of {pair}")
    folder = Path(torch.hub.get_dir(), "checkpoints")
    return [
        f"missing for {what}: download {url} as {folder / url.rpartition('/')[2]}, or allow it "
        "with --download"
        for url, what in found.items()
    ]


def report(
    pairs: Sequence[str],
    methods: Sequence[str],
    results: Mapping[Key, float],
    runs: Mapping[Key, Step],
) -> str:
    """The table in Markdown; AP in percent, as in the papers."""
    here = {**teachers(runs), **{key: 100 * value for key, value in results.items()}}
    published, sources = read_published()
    lines = [
        "| pair | method | published | here | difference | gap closed, published | here |",
        "|---|---|---|---|---|---|---|",
    ]
    for pair in pairs:
        for method in ("teacher", *methods):
            key = pair, method
            ours, theirs = here.get(key), published.get(key)
            cells = [PAIRS[pair], METHODS.get(method, method), number(theirs), number(ours)]
            cells.append("" if ours is None or theirs is None else f"{ours - theirs:+.1f}")
            cells += [share(found, key) for found in (published, here)]
            lines.append(f"| {' | '.join(cells)} |")
    return (
        "Box AP on COCO val2017, in percent, after the last epoch; recipes configs/<pair>.py. "
        f"Published: {sources}; empty where benchmarks/{PUBLISHED.name} lacks the figure. "
        "The papers' teachers are detectron2's, those here mmdet's (39.8 and 38.4), so shares of "
        "the gap compare better than AP.\n\n"
        + "\n".join(lines)
        + f"\n\n{provenance(runs.values())}\n"
    )


def teachers(runs: Mapping[Key, Step]) -> dict[Key, float]:
    """The teachers' AP in percent, as they were evaluated before their students learnt."""
    found = {}
    for (pair, _), run in runs.items():
        path = run.folder / "teacher_metrics.json"
        if path.is_file():
            metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]
            found[pair, "teacher"] = 100 * metrics.get(METRIC, 0.0)
    return found


def read_published() -> tuple[dict[Key, float], str]:
    """The published AP in percent, as far as it is known, and where it was published."""
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    known = {(row["pair"], row["method"]): float(row["mAP"]) for row in rows if row["mAP"]}
    by_source: dict[str, list[str]] = {}
    for row in rows:
        by_source.setdefault(row["source"], []).append(METHODS.get(row["method"], row["method"]))
    return known, "; ".join(
        f"{', '.join(dict.fromkeys(methods))} in {source}" for source, methods in by_source.items()
    )


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def share(found: Mapping[Key, float], key: Key) -> str:
    """The share of the gap between the student alone and the teacher that a method closes."""
    pair, method = key
    low, high, value = (found.get((pair, name)) for name in ("plain", "teacher", method))
    if method in ("plain", "teacher") or low is None or high is None or value is None:
        return ""
    return f"{(value - low) / (high - low):.0%}" if high > low else ""


if __name__ == "__main__":
    common.run(main, common.GOES_ON)
