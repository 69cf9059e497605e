"""What losses on the predictions of queries share: weights of queries, and their mean."""

from __future__ import annotations

from torch import Tensor

from kd_det.errors import InvalidInputError
from kd_det.losses._dtype import at_least_float32


def query_weights(t_logits: Tensor, softmax: bool = False) -> Tensor:
    """Weight of each query: the teacher's best score of a class, ``[N, Q, C] -> [N, Q]``, detached.

    Most queries find nothing. They would outnumber the few that find an object.

    Args:
        t_logits: Teacher logits ``[N, Q, C]``.
        softmax: Whether scores are a softmax over classes and background, the last channel, which
            is no class of an object.
    """
    logits = at_least_float32(t_logits.detach())
    scores = logits.softmax(dim=-1)[..., :-1] if softmax else logits.sigmoid()
    return scores.amax(dim=-1)


def weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of each image's queries, then the mean of images; ``[N, Q]`` to a scalar.

    Weights that sum to less than one object count as one: without any, there is nothing to learn.
    """
    total = weights.sum(dim=1).clamp(min=1)
    images = (weights * losses).sum(dim=1) / total
    return images.sum() / max(len(images), 1)


def check_queries(name: str, s: Tensor, t: Tensor) -> None:
    if s.shape != t.shape or s.dim() != 3:
        raise InvalidInputError(
            f"{name} needs predictions [N, Q, C] of the same queries on both sides, got "
            f"{list(s.shape)} of the student and {list(t.shape)} of the teacher"
        )


def check_weights(name: str, **weights: float) -> None:
    if any(weight < 0 for weight in weights.values()):
        got = ", ".join(f"{key}={value}" for key, value in weights.items())
        raise InvalidInputError(f"{name} needs {' and '.join(weights)} >= 0, got {got}")
