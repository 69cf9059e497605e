"""Loss weights of a recipe by a small greedy search on training images alone."""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

from _runs import METRIC, Data, Study, adapted
from _tables import provenance
from _trainings import final
from compare import add_arguments, data_of, with_places
from mmengine.config import Config

from kd_det.commands import common
from kd_det.files import write_atomically

FACTORS = (0.25, 4.0)
EXAMPLE = """%(prog)s --methods kd_nd cwd_nd_kd --jobs 2

A fifth of the training images is held out and judges; the validation images are never looked at.
One loss after the other, a quarter and four times its weight are tried, and kept where better.
Stopped at any time, the same command goes on where it was."""


def main() -> None:
    args = parse_args()
    data = hold_out(data_of(args), args.root / "data")
    study = Study(args.root, data)
    lines = []
    for method in args.methods:
        best = start = default_weights(method, data)
        tried = evaluate(study, args, method, [start])
        for loss in start:
            options = [{**best, loss: round(best[loss] * factor, 6)} for factor in FACTORS]
            tried |= evaluate(study, args, method, options)
            best = max([best, *options], key=lambda weights: tried[key(weights)])
        lines += [f"| {method} | {weights} | {value:.3f} |" for weights, value in tried.items()]
        lines.append(f"| {method} | **best: {key(best)}** | **{tried[key(best)]:.3f}** |")
        text = report(study, args, lines)
        write_atomically(args.out, text.encode())
    print(f"\n{text}\nTable written to {args.out}")


def parse_args() -> argparse.Namespace:
    parser = common.make_parser("python benchmarks/search_weights.py", __doc__, EXAMPLE)
    add_arguments(parser, None)
    parser.set_defaults(judge="val", seeds=[100])
    return with_places(parser.parse_args(), "search_weights", part="_held_out")


def hold_out(data: Data, folder: Path) -> Data:
    """A COCO folder whose validation images are every fifth training image of ``data``."""
    everything = json.loads(data.annotation_file("train").read_text(encoding="utf-8"))
    ids = sorted(image["id"] for image in everything["images"])
    held_out = set(ids[::5])
    for split, chosen in (("train", set(ids) - held_out), ("val", held_out)):
        part = dict(everything)
        part["images"] = [i for i in everything["images"] if i["id"] in chosen]
        part["annotations"] = [a for a in everything["annotations"] if a["image_id"] in chosen]
        path = folder / "annotations" / f"instances_{split}.json"
        write_atomically(path, json.dumps(part).encode())
        images = folder / split
        images.unlink(missing_ok=True)
        images.symlink_to((data.root / "train").absolute())
    return replace(data, root=folder)


def default_weights(method: str, data: Data) -> dict[str, float]:
    """The weight of each distillation loss; the levels of one kind share theirs."""
    losses = adapted(method, data, 0, 1).model.distiller.distill_losses
    return {kind(name): loss.get("loss_weight", 1.0) for name, loss in losses.items()}


def kind(loss: str) -> str:
    """``loss_cwd`` of ``loss_cwd_fpn3``."""
    return loss.split("_fpn")[0]


def key(weights: dict[str, float]) -> str:
    return ", ".join(f"{name.removeprefix('loss_')} {value:g}" for name, value in weights.items())


def evaluate(
    study: Study, args: argparse.Namespace, method: str, options: list[dict[str, float]]
) -> dict[str, float]:
    """Mean mAP on the held-out images for each set of weights."""
    steps = {}
    for weights in options:
        name = f"{method}_{key(weights)}".replace(", ", "_").replace(" ", "")
        change = partial(set_weights, weights=weights)
        steps[key(weights)] = [
            study.student(method, seed, change=change, name=name) for seed in args.seeds
        ]
    study.run(chain(*steps.values()), args.jobs)
    return {
        name: statistics.mean(final(step, METRIC) for step in runs) for name, runs in steps.items()
    }


def set_weights(cfg: Config, weights: dict[str, float]) -> None:
    for name, loss in cfg.model.distiller.distill_losses.items():
        loss.loss_weight = weights[kind(name)]


def report(study: Study, args: argparse.Namespace, lines: list[str]) -> str:
    rows = "\n".join(lines)
    return f"""\
# Search for loss weights

COCO mAP on a fifth of the training images of `{args.data.name}`, held out; {study.data.epochs} \
epochs on the others, seeds {" ".join(map(str, args.seeds))}; teacher trained on the same part, \
{final(study.teacher, METRIC):.3f}.

| method | weights | mAP |
|---|---|---|
{rows}

{provenance([study.teacher])}
"""


if __name__ == "__main__":
    common.run(main, common.GOES_ON)
