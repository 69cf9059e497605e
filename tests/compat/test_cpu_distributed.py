"""torchrun trains on a CPU, with MMEngine's defaults."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]

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

_TRAINING = """
import sys
import kd_det
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

torch.set_num_threads(1)


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x, mode="loss"):
        return dict(loss=(self.layer(x) - 2 * x).square().mean())


runner = Runner(
    model=Model(),
    work_dir=sys.argv[1],
    train_dataloader=dict(
        dataset=[dict(x=torch.tensor([i / 8])) for i in range(8)],
        batch_size=2,
        sampler=dict(type="DefaultSampler", shuffle=True),
        collate_fn=dict(type="default_collate"),
    ),
    train_cfg=dict(by_epoch=True, max_epochs=2),
    optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
    launcher="pytorch",
)
runner.train()
group = torch.distributed
weights = [None] * group.get_world_size()
group.all_gather_object(weights, runner.model.module.layer.weight.item())
assert len(set(weights)) == 1, weights
print(f"RANK {group.get_rank()} of {len(weights)} on {group.get_backend()}", flush=True)
group.barrier()  # or one may be gone while the other still listens
group.destroy_process_group()
"""


def test_breaks_without_the_patch(unpatched):
    assert unpatched["init_dist"] is not None
    assert "device_ids" in unpatched["device_ids"]


def test_two_processes_train(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(_TRAINING)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        + [str(script), str(tmp_path / "work")],
        capture_output=True,
        text=True,
        timeout=240,
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        },
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "RANK 0 of 2 on gloo" in output and "RANK 1 of 2 on gloo" in output
    assert output.count("no GPU found: using the 'gloo' backend") == 1
    assert (tmp_path / "work" / "epoch_2.pth").is_file()


def test_models_on_a_gpu_keep_their_device_ids(monkeypatch):
    """Only a model that lies on the CPU as a whole is touched; the meta device stands for a GPU."""
    from mmengine.model.wrappers import distributed

    seen = []
    plain = distributed.MMDistributedDataParallel.__init__.__wrapped__
    base = plain.__globals__["DistributedDataParallel"]
    monkeypatch.setattr(base, "__init__", lambda self, **kwargs: seen.append(kwargs["device_ids"]))
    monkeypatch.setattr(
        distributed.MMDistributedDataParallel,
        "__setattr__",
        lambda self, name, value: object.__setattr__(self, name, value),
    )
    for device in ("meta", "cpu"):
        model = torch.nn.Linear(2, 2, device=device)
        distributed.MMDistributedDataParallel(model, device_ids=[0])
    assert seen == [[0], None]
