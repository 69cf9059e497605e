"""Tables of methods that were trained with several seeds, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from kd_det.commands.steps import Step
from kd_det.report.machine import software

Results = dict[tuple[str, int], float]  # of a method and a seed


def method_table(
    methods: Sequence[str], results: Results, teacher: float, metric: str, decimals: int = 3
) -> str:
    """Mean, spread and share of the gap between ``plain`` and the teacher, for each method."""
    by_method: dict[str, list[float]] = {}
    for (method, _), value in results.items():
        by_method.setdefault(method, []).append(value)
    plain = statistics.mean(by_method["plain"]) if "plain" in by_method else float("nan")
    gap = teacher - plain
    lines = [
        f"| method | mean {metric} | standard deviation | of the gap to the teacher | ND adds "
        "| each seed |",
        "|---|---|---|---|---|---|",
    ]
    for method in ("plain", *methods):
        values = by_method.get(method)
        if values is None:
            continue
        mean = statistics.mean(values)
        spread = f"{statistics.stdev(values):.{decimals}f}" if len(values) > 1 else ""
        share = f"{(mean - plain) / gap:.0%}" if method != "plain" and gap > 0 else ""
        each = " ".join(f"{value:.{decimals}f}" for value in values)
        nd_adds = over_base(method, results, decimals)
        lines.append(
            f"| {method} | {mean:.{decimals}f} | {spread} | {share} | {nd_adds} | {each} |"
        )
    return "\n".join(lines)


def over_base(method: str, results: Results, decimals: int) -> str:
    """What the ND loss adds, over the seeds that both forms have."""
    bases = (method.replace("_nd", ""), method.partition("_nd")[0])
    base = next((each for each in bases if any(m == each for m, _ in results)), method)
    seeds = [s for m, s in results if m == method and (base, s) in results]
    if base == method or not seeds:
        return ""
    added = statistics.mean(results[method, s] - results[base, s] for s in seeds)
    return f"{added:+.{decimals}f}"


def provenance(runs: Iterable[Step]) -> str:
    """Of the code that made the finished runs, and of this machine."""
    commits = sorted({step.commit for step in runs if step.done})
    return f"Commit {', '.join(commits)}; {software()}."
