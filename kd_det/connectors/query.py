"""Maps a teacher's queries to the width of the student's decoder."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from kd_det.errors import InvalidInputError

# Inputs of a decoder that have its width; others are places in the image.
EMBEDDINGS = ("query", "query_pos")


class QueryConnector(nn.Module):
    """A linear layer for each embedding of a query: ``[N, Q, in] -> [N, Q, out]``.

    It goes the other way than connectors of features: decoders of two widths share queries, which
    are the teacher's.

    Args:
        in_features: Width of the teacher's decoder.
        out_features: Width of the student's decoder.
        embeddings: Which of ``'query'``, the content, and ``'query_pos'``, the position, are
            shared.

    Raises:
        ValueError: If a width is not positive or an embedding is unknown.
    """

    def __init__(self, in_features: int, out_features: int, embeddings: list[str]) -> None:
        super().__init__()
        if min(in_features, out_features) < 1 or not set(embeddings) <= set(EMBEDDINGS):
            raise InvalidInputError(
                "QueryConnector needs in_features >= 1, out_features >= 1 and embeddings out of "
                f"{EMBEDDINGS}, got in_features={in_features}, out_features={out_features}, "
                f"embeddings={embeddings}"
            )
        self.in_features = in_features
        self.linears = nn.ModuleDict({x: _linear(in_features, out_features) for x in embeddings})

    def forward(self, queries: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Queries for the student's decoder, of those of the teacher's; places stay as they are.

        Args:
            queries: Inputs of a decoder by name, embeddings ``[N, Q, in_features]``.

        Raises:
            ValueError: If an embedding is missing or has another width.
        """
        found = dict(queries)
        for name, linear in self.linears.items():
            if name not in found or found[name].shape[-1] != self.in_features:
                got = {key: list(value.shape) for key, value in found.items()}
                raise InvalidInputError(
                    f"QueryConnector expected '{name}' [N, Q, {self.in_features}], got {got}"
                )
            found[name] = linear(found[name].float())
        return found


def _linear(in_features: int, out_features: int) -> nn.Linear:
    linear = nn.Linear(in_features, out_features)
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
