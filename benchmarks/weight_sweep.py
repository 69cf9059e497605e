"""How much mAP depends on the weight of feature distillation, for one or more recipes."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from fractions import Fraction
from functools import partial
from pathlib import Path

from _runs import METRIC, Study
from _tables import provenance
from _trainings import run_and_write
from compare import add_arguments, data_of, with_places
from mmengine.config import Config

from kd_det.commands import common
from kd_det.commands.steps import Step
from kd_det.errors import InvalidInputError

Results = dict[str, dict[Fraction, list[float]]]
EXAMPLE = """%(prog)s --methods review_nd_kd cwd_nd_kd --jobs 2

Scales the weights of all losses that compare pyramids. Stopped at any time, the same command goes
on where it was. Shares teacher and students with compare.py of the same --root."""


def main() -> None:
    args = parse_args()
    study = Study(args.root, data_of(args))
    runs = {
        (method, factor, seed): student(study, method, factor, seed)
        for seed in args.seeds
        for method in args.methods
        for factor in args.factors
    }

    def table(done: dict[tuple[str, Fraction, int], float]) -> str:
        results: Results = {}
        for (method, factor, _), value in done.items():
            results.setdefault(method, {}).setdefault(factor, []).append(value)
        plot(results, args.out.with_suffix(".png"))
        return report(args, study, results, runs.values())

    run_and_write(lambda: study.run(runs.values(), args.jobs), runs, METRIC, table, args.out)


def parse_args() -> argparse.Namespace:
    parser = common.make_parser("python benchmarks/weight_sweep.py", __doc__, EXAMPLE)
    add_arguments(parser, None)
    parser.add_argument(
        "--factors",
        type=Fraction,
        nargs="+",
        default=[Fraction(2) ** k for k in range(-3, 4)],
        help="of the recipe's weight; default: 1/8 1/4 1/2 1 2 4 8",
    )
    parser.set_defaults(judge="val")
    return with_places(parser.parse_args(), "weight_sweep")


def student(study: Study, method: str, factor: Fraction, seed: int) -> Step:
    """A run with weights of its own; with factor 1 that of benchmarks/compare.py."""
    if factor == 1:
        return study.student(method, seed)
    change = partial(scale_feature_losses, factor=factor)
    return study.student(method, seed, change=change, name=f"{method}_x{float(factor):g}")


def scale_feature_losses(cfg: Config, factor: Fraction) -> None:
    """Multiply the weight of every distillation loss that is given pyramids."""
    distiller = cfg.model.distiller
    scaled = 0
    for name, arguments in distiller.loss_forward_mappings.items():
        if any(record.recorder == "fpn" for record in arguments.values()):
            loss = distiller.distill_losses[name]
            loss.loss_weight = float(loss.get("loss_weight", 1) * factor)
            scaled += 1
    if not scaled:
        raise InvalidInputError(
            "expected a recipe with a loss on the pyramid, found "
            f"{sorted(distiller.distill_losses)}"
        )


def report(args: argparse.Namespace, study: Study, results: Results, runs: Iterable[Step]) -> str:
    data = study.data
    headings = [f"x {factor}" for factor in args.factors]
    lines = [
        f"| method | {' | '.join(headings)} | range | best over x 1 |",
        "|---" * (len(headings) + 3) + "|",
    ]
    for method, by_factor in results.items():
        cells = [mean_and_spread(by_factor.get(factor, [])) for factor in args.factors]
        means = [statistics.mean(values) for values in by_factor.values()]
        cells.append(f"{max(means) - min(means):.3f}")
        start = by_factor.get(Fraction(1))
        cells.append(f"{max(means) - statistics.mean(start):.3f}" if start else "")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    table = "\n".join(lines)
    return f"""\
Mean COCO mAP (and its standard deviation) on `{data.root.name}` at {data.scale[0]} x \
{data.scale[1]} pixels, {data.epochs} epochs, seeds {" ".join(map(str, args.seeds))}, with the \
weight of all losses on the pyramid multiplied by a factor.

{table}

{provenance(runs)}
"""


def mean_and_spread(values: list[float]) -> str:
    if not values:
        return "not run"
    spread = f" ({statistics.stdev(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def plot(results: Results, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for method, by_factor in results.items():
        factors = sorted(by_factor)
        means = [statistics.mean(by_factor[f]) for f in factors]
        several = all(len(by_factor[f]) > 1 for f in factors)
        spreads = [statistics.stdev(by_factor[f]) for f in factors] if several else None
        axes.errorbar([float(f) for f in factors], means, spreads, marker="o", label=method)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("weight of the losses on the pyramid, times the recipe's")
    axes.set_ylabel("COCO mAP")
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    common.run(main, common.GOES_ON)
