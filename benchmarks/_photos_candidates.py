"""Forms of ReviewKD and the ND loss that are compared: a method each, and what is changed in it."""

from __future__ import annotations

from _photos import Change

CANDIDATES: dict[str, tuple[str, Change]] = {}
