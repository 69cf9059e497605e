"""One verdict on a training: what its teacher, losses and setting say; needs no GPU and no data.

All is read from the work directory, also of a training that still runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kd_det.report.doctor import losses, setting
from kd_det.report.doctor.finding import Finding
from kd_det.report.doctor.losses import LossFacts
from kd_det.report.runs import read_dumped_config
from kd_det.report.scalars import read_scalars

__all__ = ["Diagnosis", "Finding", "LossFacts", "diagnose"]


@dataclass(frozen=True)
class Diagnosis:
    """What was found in a training.

    Args:
        run: Its work directory.
        iterations: The last one that was logged, 0 without any.
        findings: Problems first.
        losses: Figures of each distillation loss.
    """

    run: Path
    iterations: int
    findings: list[Finding]
    losses: list[LossFacts]

    @property
    def problems(self) -> list[Finding]:
        """What most likely needs a change."""
        return [finding for finding in self.findings if finding.problem]

    def as_dict(self) -> dict[str, Any]:
        """All of it, for programs."""
        return {
            "run": str(self.run),
            "iterations": self.iterations,
            "healthy": not self.problems,
            "findings": [asdict(finding) for finding in self.findings],
            "losses": [asdict(facts) for facts in self.losses],
        }

    def describe(self) -> str:
        """The verdict, a sentence for each finding, and a table of the losses."""
        number = len(self.problems)
        found = "no problem was found" if not number else f"{number} problem{'s'[: number > 1]}"
        plural = "" if self.iterations == 1 else "s"
        lines = [f"{self.run}: {found} in {self.iterations} iteration{plural}."]
        for finding in self.findings:
            lines.append(f"- {'Problem: ' if finding.problem else ''}{finding.text}")
        if self.losses:
            lines += ["", *losses.table(self.losses)]
        return "\n".join(lines)


def diagnose(folder: Path) -> Diagnosis:
    """Look at the training in a work directory, finished or not.

    Raises:
        FileNotFoundError: If the folder has no config of a training.
    """
    cfg = read_dumped_config(folder)
    scalars = read_scalars(folder)
    facts = losses.read_losses(scalars)

    def find() -> Iterator[Finding]:
        if "loss" not in scalars:
            yield Finding(
                "log",
                True,
                "No loss was logged: the training stopped before its first line of the log, or "
                "its visualizer has no LocalVisBackend.",
            )
        yield from setting.find_in_teacher(folder, scalars)
        helped = setting.is_helped(folder, scalars)
        yield from losses.find_in_losses(facts, cfg, scalars, helped)
        yield from setting.find_in_steps(folder, cfg, scalars)
        yield from setting.find_in_centers(folder)
        yield from setting.find_in_learning_rate(folder, cfg)

    findings = sorted(find(), key=lambda finding: not finding.problem)
    return Diagnosis(folder, max(scalars.get("loss", {}), default=0), findings, facts)
