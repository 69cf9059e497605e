"""Write the annotations that training reads: small files in the work directory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kd_det.datasets.coco import Annotations
from kd_det.datasets.formats import DetectionSet
from kd_det.datasets.inspection import Inspection
from kd_det.files import write_atomically


def write_set(found: DetectionSet, inspection: Inspection, folder: Path) -> dict[str, Annotations]:
    """Write what has to be converted or repaired; images stay where they are.

    Args:
        found: The data set.
        inspection: Its checked annotations.
        folder: Where ``<part>.json`` goes, and ``split.json`` if the images were divided.

    Returns:
        The annotations of each part with the file that training reads: its own where that can be
        read as it is.

    Raises:
        OSError: If a file cannot be written.
    """
    written = {}
    for name, part in found.parts.items():
        annotations = inspection.annotations[name]
        if part.converted or annotations.repairs:
            path = folder.absolute() / f"{name}.json"
            data = {**annotations.data, "info": _info(found, annotations.data)}
            write_atomically(path, json.dumps(data).encode("ascii"))
            annotations = replace(annotations, path=path, data=data, repairs=[])
        written[name] = annotations
    if found.division is not None:
        path = folder.absolute() / "split.json"
        write_atomically(path, json.dumps(found.division, indent=1).encode("ascii"))
    return written


def _info(found: DetectionSet, data: Mapping[str, Any]) -> dict[str, Any]:
    info = data.get("info")
    own = dict(info) if isinstance(info, dict) else {}
    return {**own, "converted_from": found.format, "root": os.path.abspath(found.root)}
