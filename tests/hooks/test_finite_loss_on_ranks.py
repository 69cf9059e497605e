"""What FiniteLossHook finds on one rank is decided by all, so that none waits for another."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import distributed, multiprocessing
from torch.utils.data import DataLoader

from kd_det.hooks import FiniteLossHook, NonFiniteLossError


class Model(BaseModel):
    """A linear layer, with running statistics or not; its loss is NaN where its input is."""

    def __init__(self, track: bool) -> None:
        super().__init__()
        self.track = track
        self.linear = torch.nn.Linear(2, 1)
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, inputs: torch.Tensor, mode: str = "tensor") -> dict[str, torch.Tensor]:
        if self.track:
            self.mean.add_(inputs.mean())
        return {"loss": self.linear(inputs).square().mean()}


def train(rank: int, folder: Path) -> None:
    """One process: six iterations of one image, of which the second of rank 1 is broken."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    images = torch.ones(6, 2)
    if rank == 1:
        images[1] = float("nan")
    report = {}
    for name in ("loss", "statistics"):
        model = Model(track=name == "statistics")
        run = Runner(
            model=model,
            work_dir=str(folder / f"{name}_{rank}"),
            train_dataloader=DataLoader([dict(inputs=x) for x in images], batch_size=1),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.01)),
            custom_hooks=[FiniteLossHook(policy="skip")],
            experiment_name=f"{name}_{rank}",
        )
        try:
            run.train()
            report[name] = f"{run.iter} iterations, {run._hooks[-1].skipped} skipped"
        except NonFiniteLossError as error:
            report[name] = str(error)
        report[f"{name} finite"] = bool(model.linear.weight.isfinite().all())
    (folder / f"{rank}.json").write_text(json.dumps(report))
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    context = multiprocessing.spawn(train, args=(folder,), nprocs=2, join=False)
    deadline = time.monotonic() + 120
    while not context.join(timeout=5):
        if time.monotonic() > deadline:
            for process in context.processes:
                process.kill()
            pytest.fail("one rank waits for the other")
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_all_ranks_leave_the_same_step_out(reports):
    assert [r["loss"] for r in reports] == ["6 iterations, 1 skipped"] * 2
    assert all(r["loss finite"] for r in reports)


def test_statistics_of_one_rank_stop_all(reports):
    first, second = (r["statistics"] for r in reports)
    assert "a loss of another rank not finite in iteration 2" in first
    assert first.endswith("not finite either: those of another rank")
    assert "loss not finite in iteration 2" in second
    assert second.endswith("not finite either: mean")
