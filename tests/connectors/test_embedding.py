"""EmbeddingConnector: its arithmetic, small batches, autocast, and its place in a distiller."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kd_det.connectors import EmbeddingConnector

IN, OUT = 6, 4


def connector(dropout: float = 0.0) -> EmbeddingConnector:
    """With random parameters and running statistics."""
    torch.manual_seed(0)
    module = EmbeddingConnector(IN, OUT, dropout)
    for x in (*module.parameters(), module.norm.running_mean):
        nn.init.normal_(x)
    nn.init.uniform_(module.norm.running_var, 0.5, 2.0)
    return module


def embeddings(rows: int = 5) -> Tensor:
    return torch.randn(rows, IN, generator=torch.Generator().manual_seed(1)) * 3 + 1


def with_running_statistics(module: EmbeddingConnector, x: Tensor) -> Tensor:
    norm = module.norm
    x = (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    return (x * norm.weight + norm.bias) @ module.linear.weight.T + module.linear.bias


# Arithmetic


def test_training_normalises_with_the_batch():
    module, x = connector().train(), embeddings()
    normal = (x - x.mean(0)) / (x.var(0, correction=0) + module.norm.eps).sqrt()
    expected = (normal * module.norm.weight + module.norm.bias) @ module.linear.weight.T
    torch.testing.assert_close(module(x), expected + module.linear.bias)


def test_eval_normalises_with_running_statistics():
    module, x = connector(dropout=0.5).eval(), embeddings()
    torch.testing.assert_close(module(x), with_running_statistics(module, x))


def test_training_drops_half_of_the_normalised_entries():
    module = EmbeddingConnector(1000, 1000).train()
    nn.init.eye_(module.linear.weight)
    nn.init.zeros_(module.linear.bias)
    torch.manual_seed(0)
    x = torch.randn(64, 1000)
    out = module(x)
    kept = out != 0
    assert kept.float().mean().item() == pytest.approx(0.5, abs=0.01)
    # What is kept is doubled: the expected value stays.
    normal = nn.functional.batch_norm(x, None, None, training=True)
    torch.testing.assert_close(out[kept], 2 * normal[kept])


def test_starts_as_published():
    torch.manual_seed(0)
    linear = EmbeddingConnector(512, 2048).linear
    for parameter in (linear.weight, linear.bias):
        assert parameter.std().item() == pytest.approx(0.01, rel=0.05)
        assert parameter.mean().item() == pytest.approx(0.0, abs=1e-3)


# Small batches


@pytest.mark.parametrize("rows", [0, 1])
def test_a_batch_without_statistics_uses_the_running_ones(rows, device):
    module, x = connector().train().to(device), embeddings(rows).to(device).requires_grad_()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    out = module(x)
    assert out.shape == (rows, OUT)
    torch.testing.assert_close(out, with_running_statistics(module, x))
    out.sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad is not None for p in module.parameters())  # DDP waits for each
    assert all(torch.equal(v, before[name]) for name, v in module.state_dict().items())


def test_two_rows_have_statistics():
    module = connector().train()
    mean = module.norm.running_mean.clone()
    assert module(embeddings(2)).isfinite().all()
    assert not torch.equal(module.norm.running_mean, mean)


# Number formats


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_any_input_format_with_and_without_autocast(training, rows, dtype, autocast, device):
    module = connector().train(training).to(device)
    x = embeddings(rows).to(device, dtype).requires_grad_()
    expected = connector().train(training).to(device)(x.detach().float())
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
        out = module(x)
    assert out.dtype == (torch.bfloat16 if autocast else torch.float32)
    torch.testing.assert_close(out.float(), expected, rtol=0.02, atol=0.1 if autocast else 1e-5)
    out.float().sum().backward()
    assert x.grad.dtype == dtype


def test_gradient_equals_finite_differences():
    module = connector().double().train()
    x = embeddings().double().requires_grad_()
    assert torch.autograd.gradcheck(module, x)


# In a distiller


# Errors


@pytest.mark.parametrize("shape", [[5, 7], [6], [5, 6, 1, 1]])
@pytest.mark.parametrize("training", [False, True])
def test_rejects_other_shapes(shape, training):
    module = connector().train(training)
    found = ", ".join(map(str, shape))
    with pytest.raises(ValueError, match=rf"embeddings \[N, 6\], got \[{found}\]"):
        module(torch.zeros(shape))


@pytest.mark.parametrize(
    "option, value",
    [("in_features", 0), ("out_features", -1), ("dropout", -0.1), ("dropout", 1.5)],
)
def test_options_out_of_range_are_an_error(option, value):
    with pytest.raises(ValueError, match=f"{option}={value}"):
        EmbeddingConnector(**{"in_features": IN, "out_features": OUT, option: value})


def test_of_several_tokens_it_takes_the_mean():
    connector = EmbeddingConnector(3, 2).eval()
    tokens = torch.randn(5, 3), torch.randn(5, 3)
    torch.testing.assert_close(connector(tokens), connector((tokens[0] + tokens[1]) / 2))
