"""Distributed training starts on a CPU, with MMEngine's defaults."""

from __future__ import annotations

_WORLD_OF_ONE = """
import os
os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="localhost")
import socket
with socket.socket() as free:
    free.bind(("localhost", 0))
    os.environ["MASTER_PORT"] = str(free.getsockname()[1])
"""
BREAKAGE = {
    "init_dist": _WORLD_OF_ONE + "from mmengine.dist import init_dist; init_dist('pytorch')",
    "device_ids": _WORLD_OF_ONE
    + """
import torch
if not torch.distributed.is_initialized():
    torch.distributed.init_process_group("gloo")
from mmengine.model import MMDistributedDataParallel
try:
    MMDistributedDataParallel(torch.nn.Linear(2, 2), device_ids=[0])
finally:
    torch.distributed.destroy_process_group()
""",
}
PATCHED = dict(BREAKAGE)


def test_breaks_without_the_patch(unpatched):
    assert unpatched["init_dist"] is not None
    assert "device_ids" in unpatched["device_ids"]


def test_starts_with_it(patched):
    assert patched["init_dist"] is patched["device_ids"] is None
