"""The linear layers between decoders of two widths."""

from __future__ import annotations

import pytest
import torch

from kd_det.connectors import QueryConnector


def test_embeddings_are_mapped_and_places_stay():
    torch.manual_seed(0)
    connector = QueryConnector(6, 4, ["query", "query_pos"])
    queries = {name: torch.randn(2, 5, 6) for name in ("query", "query_pos")}
    queries["reference_points"] = torch.rand(2, 5, 2)
    found = connector(queries)
    assert found["reference_points"] is queries["reference_points"]
    for name, linear in connector.linears.items():
        expected = queries[name] @ linear.weight.T + linear.bias
        torch.testing.assert_close(found[name], expected)
    assert not torch.allclose(*(connector.linears[x].weight for x in ("query", "query_pos")))


def test_a_teacher_in_half_precision():
    connector = QueryConnector(6, 4, ["query"])
    found = connector(dict(query=torch.randn(2, 5, 6).bfloat16()))["query"]
    assert found.dtype == torch.float32
    found.sum().backward()
    assert connector.linears["query"].weight.grad.abs().sum() > 0


def test_wrong_input_is_named():
    connector = QueryConnector(6, 4, ["query"])
    with pytest.raises(ValueError, match=r"expected 'query' \[N, Q, 6\], got .*\[2, 5, 8\]"):
        connector(dict(query=torch.zeros(2, 5, 8)))
    with pytest.raises(ValueError, match=r"'query' .*got .*query_pos"):
        connector(dict(query_pos=torch.zeros(2, 5, 6)))
    with pytest.raises(ValueError, match=r"embeddings out of \('query', 'query_pos'\).*\['key'\]"):
        QueryConnector(6, 4, ["key"])
    with pytest.raises(ValueError, match="out_features=0"):
        QueryConnector(6, 0, ["query"])
