"""Maps a student's embedding to the size of the teacher's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd_det.connectors._batch_norm import batch_norm
from kd_det.errors import InvalidInputError


class EmbeddingConnector(nn.Module):
    """BatchNorm1d, Dropout, Linear: ``[N, in_features] -> [N, out_features]``.

    A training batch of one row or none (with ``sync_bn``: on all ranks together) has no statistics
    of its own and is normalised with the running ones, which stay as they are. Several tokens of a
    transformer are averaged.

    Args:
        in_features: Size of the student's embedding.
        out_features: Size of the teacher's embedding.
        dropout: Probability with which training sets an entry to zero.

    Raises:
        ValueError: If a size is not positive or ``dropout`` is not a probability.

    Source: the official code of "Improving Knowledge Distillation via Regularizing Feature Norm
    and Direction", arXiv 2305.17007, for embeddings of different sizes; initialised as there.
    """

    def __init__(self, in_features: int, out_features: int, dropout: float = 0.5) -> None:
        super().__init__()
        if in_features < 1 or out_features < 1 or not 0 <= dropout <= 1:
            raise InvalidInputError(
                "EmbeddingConnector needs in_features >= 1, out_features >= 1 and dropout in "
                f"[0, 1], got in_features={in_features}, out_features={out_features}, "
                f"dropout={dropout}"
            )
        self.norm = nn.BatchNorm1d(in_features)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_features, out_features)
        for parameter in self.linear.parameters():
            nn.init.normal_(parameter, std=0.01)

    def forward(self, s_emb: Tensor | Sequence[Tensor]) -> Tensor:
        """Embeddings ``[N, out_features]`` of student embeddings ``[N, in_features]``.

        Args:
            s_emb: The embeddings, or a sequence of them whose mean is taken: the class and the
                distillation token of DeiT.

        Raises:
            ValueError: If the shape does not fit.
        """
        if not isinstance(s_emb, Tensor):
            s_emb = torch.stack(list(s_emb)).mean(dim=0)
        expected = self.linear.in_features
        if s_emb.dim() != 2 or s_emb.shape[1] != expected:
            raise InvalidInputError(
                f"EmbeddingConnector expected student embeddings [N, {expected}], got "
                f"{list(s_emb.shape)}"
            )
        # Half-precision rows may come out of an autocast region, float32 parameters do not.
        s_emb = s_emb.to(self.linear.weight.dtype)
        return self.linear(self.dropout(batch_norm(self.norm, s_emb, maybe_empty=True)))
