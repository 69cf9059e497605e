"""Connectors with the norms that `sync_bn` puts into them, in one process and in two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from kd_det.connectors import EmbeddingConnector, ReviewFusion


class CpuSyncBatchNorm(nn.SyncBatchNorm):
    """The arithmetic of `nn.SyncBatchNorm`, whose kernels are for GPUs alone."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and dist.is_initialized()):
            return super().forward(x)
        self.num_batches_tracked.add_(1)
        over = [d for d in range(x.dim()) if d != 1]
        count = all_reduce(torch.tensor([x.numel() / x.shape[1]]))
        mean = all_reduce(x.sum(over)) / count
        shape = [-1 if d == 1 else 1 for d in range(x.dim())]
        centered = x - mean.view(shape)
        var = all_reduce(centered.square().sum(over)) / count
        for running, value in ((self.running_mean, mean), (self.running_var, var)):
            running.lerp_(value.detach(), self.momentum)
        normal = centered / (var.view(shape) + self.eps).sqrt()
        return normal * self.weight.view(shape) + self.bias.view(shape)


def synchronised(module: nn.Module) -> nn.Module:
    module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for part in module.modules():
        if isinstance(part, nn.SyncBatchNorm):
            part.__class__ = CpuSyncBatchNorm
    return module


def embedding() -> EmbeddingConnector:
    torch.manual_seed(0)
    return EmbeddingConnector(4, 3, dropout=0.0)


def fusion(recompute: bool = False) -> ReviewFusion:
    torch.manual_seed(0)
    return ReviewFusion([4, 6], [5, 5], 3, recompute=recompute)


def maps(images: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = (images, 4, 2, 2), (images, 6)  # the second is a pooled feature
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


def rows(count: int) -> Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(2)) + 1


# In one process


@pytest.mark.parametrize("images", [1, 2])
def test_fusion_trains_as_with_plain_norms(images):
    plain, converted = fusion(), nn.SyncBatchNorm.convert_sync_batchnorm(fusion())
    assert any(isinstance(m, nn.SyncBatchNorm) for m in converted.modules())
    torch.testing.assert_close(converted(maps(images)), plain(maps(images)))
    torch.testing.assert_close(converted.state_dict(), plain.state_dict())


@pytest.mark.parametrize("convert", [nn.SyncBatchNorm.convert_sync_batchnorm, lambda x: x])
def test_recomputed_maps_are_counted_once(convert):
    """The backward pass normalises again, without moving the statistics again."""
    module = convert(fusion(recompute=True))
    sum(x.square().sum() for x in module(maps(2))).backward()
    plain = fusion()
    plain(maps(2))
    torch.testing.assert_close(module.state_dict(), plain.state_dict())


@pytest.mark.parametrize("count", [0, 1, 5])
def test_embedding_trains_as_with_plain_norms(count):
    plain, converted = embedding(), nn.SyncBatchNorm.convert_sync_batchnorm(embedding())
    torch.testing.assert_close(converted(rows(count)), plain(rows(count)))
    torch.testing.assert_close(converted.state_dict(), plain.state_dict())


# In two

SHARES = {  # rows on each of two ranks
    "none-and-many": (0, 5),
    "one-and-many": (1, 4),
    "one-each": (1, 1),
    "one-in-all": (1, 0),
    "none-in-all": (0, 0),
}


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    found = {}
    for name, (first, second) in SHARES.items():
        module = synchronised(embedding())
        x = rows(first + second).split([first, second])[rank].clone().requires_grad_()
        out = module(x)
        out.sum().backward()  # as DDP does, on each rank
        found[name] = (out.detach(), module.state_dict())
    module = synchronised(fusion())
    x = [level[rank : rank + 1].detach().requires_grad_() for level in maps(2)]
    out = module(x)
    sum(level.sum() for level in out).backward()
    found["fusion"] = ([level.detach() for level in out], module.state_dict())
    torch.save(found, Path(folder) / f"{rank}.pth")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    context = mp.spawn(run_rank, args=(str(folder),), nprocs=2, join=False)
    try:
        # A rank that skips a collective makes the other one wait.
        assert context.join(timeout=60) or context.join(timeout=60), "a rank waits for the other"
    finally:
        for process in context.processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pth", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", SHARES)
def test_ranks_with_few_rows_go_on_together(ranks, name):
    """Both have what one process has with all rows."""
    plain = embedding()
    expected = plain(rows(sum(SHARES[name]))).split(SHARES[name])
    for found, out in zip(ranks, expected):
        torch.testing.assert_close(found[name][0], out, rtol=1e-4, atol=1e-5)
        mean = found[name][1]["norm.running_mean"]
        torch.testing.assert_close(mean, plain.norm.running_mean)
        assert found[name][1]["norm.running_var"].isfinite().all()


def test_single_images_share_their_statistics(ranks):
    expected = fusion()(maps(2))
    for rank, found in enumerate(ranks):
        for level, out in zip(found["fusion"][0], expected):
            torch.testing.assert_close(level, out[rank : rank + 1], rtol=1e-4, atol=1e-4)
