"""Find what lies beside the code: kd_det's own configs."""

from __future__ import annotations

from pathlib import Path


def find_configs() -> Path:
    """The folder of kd_det's configs: inside an installed package, or beside it in a clone.

    Raises:
        FileNotFoundError: If they are at neither place.
    """
    package = Path(__file__).resolve().parent
    places = (package / ".mim" / "configs", package.parent / "configs")
    for place in places:
        if (place / "_base_" / "methods").is_dir():
            return place
    raise FileNotFoundError(
        f"kd_det's configs are neither in {places[0]} nor in {places[1]}; install kd_det again"
    )
