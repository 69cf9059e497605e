"""The machine that measures."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch
from mmengine.device import get_device


def processor(device: str | None = None) -> str:
    """Name the processor: the GPU, or the CPU with torch's number of threads."""
    if (device or get_device()) == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    name = found[1].strip() if found else platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' if threads > 1 else ''} on {os.cpu_count()} cores"


def software() -> str:
    """List architecture, cores, and versions of Python and torch."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )
