"""What the doctor says of one thing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A sentence or two with figures.

    Args:
        about: What it is about, for programs: ``teacher``, ``zero_loss``, ``centers``, ...
        problem: Whether something most likely needs a change.
        text: The sentences.
    """

    about: str
    problem: bool
    text: str
