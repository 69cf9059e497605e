"""A query detector's decoder and head, run on queries that are given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from mmdet.models.detectors import (
    DABDETR,
    DETR,
    DINO,
    ConditionalDETR,
    DeformableDETR,
    DetectionTransformer,
)
from mmdet.models.layers.transformer import (
    ConditionalDetrTransformerDecoder,
    DABDetrTransformerDecoder,
    DeformableDetrTransformerDecoder,
    DetrTransformerDecoder,
    DinoTransformerDecoder,
)
from torch import Tensor, nn

from kd_det.algorithms.wiring import WiringError
from kd_det.connectors.query import EMBEDDINGS
from kd_det.errors import UnsupportedTypeError

Queries = dict[str, Tensor]


class Kind(NamedTuple):
    """How detectors of some kind hand queries to their decoder.

    Attributes:
        decoder: Class of the decoder.
        inputs: Those of its arguments that are queries: their content (``query``; where it is not
            among them, it is zero), position (``query_pos``) and place in the image.
    """

    decoder: type[nn.Module]
    inputs: tuple[str, ...]


# The first that fits, derived classes before their bases.
KINDS: dict[type[DetectionTransformer], Kind] = {
    DINO: Kind(DinoTransformerDecoder, ("query", "reference_points")),
    DeformableDETR: Kind(
        DeformableDetrTransformerDecoder, ("query", "query_pos", "reference_points")
    ),
    DABDETR: Kind(DABDetrTransformerDecoder, ("query", "query_pos")),
    ConditionalDETR: Kind(ConditionalDetrTransformerDecoder, ("query_pos",)),
    DETR: Kind(DetrTransformerDecoder, ("query_pos",)),
}


class Outputs(NamedTuple):
    """What a decoder's last layer and the head make of queries.

    Attributes:
        logits: Of the classes, ``[N, Q, C]``.
        boxes: Centre, width and height relative to the image, ``[N, Q, 4]``.
        embeddings: The decoder's last hidden states ``[N, Q, D]``.
        matched: The hidden states ``[n, D]`` of queries that the teacher matched to objects.
        labels: Classes ``[n]`` of these objects.
    """

    logits: Tensor
    boxes: Tensor
    embeddings: Tensor
    matched: Tensor | None = None
    labels: Tensor | None = None

    def at(self, labels: Tensor, background: int) -> Outputs:
        """Add the queries whose label ``[N, Q]`` is of an object."""
        found = labels != background
        return self._replace(matched=self.embeddings[found], labels=labels[found])


class Call(NamedTuple):
    """A call of a decoder: its arguments by name, and what came out."""

    arguments: dict[str, Any]
    outputs: Any


def find_kind(detector: Any) -> Kind:
    """Find how a detector hands queries to its decoder.

    Raises:
        TypeError: If it is of no known kind, or does more with its queries than that.
    """
    for base, kind in KINDS.items():
        if isinstance(detector, base):
            methods = ("forward_decoder", "forward_transformer", "pre_transformer")
            own = type(detector)
            changed = [x for x in methods if getattr(own, x) is not getattr(base, x)]
            if type(detector.decoder) is kind.decoder and not changed:
                return kind
            break
    known = ", ".join(base.__name__ for base in reversed(KINDS))
    raise UnsupportedTypeError(
        f"queries are shared between detectors of mmdet whose decoder takes them as {known} do; "
        f"found a {type(detector).__name__}"
    )


def shared_inputs(detector: Any) -> tuple[str, ...]:
    """Names of the decoder's arguments that two detectors share.

    Raises:
        TypeError: As :func:`find_kind`.
    """
    inputs = find_kind(detector).inputs
    if isinstance(detector, DABDETR) and not detector.num_patterns:
        return tuple(name for name in inputs if name != "query")  # it is zero
    return inputs


def embedded_inputs(detector: Any) -> list[str]:
    """Those of the shared inputs that have the decoder's width.

    Raises:
        TypeError: As :func:`find_kind`.
    """
    # The position of DAB-DETR's is a box, before its sigmoid.
    places = ("query_pos",) if isinstance(detector, DABDETR) else ()
    return [x for x in shared_inputs(detector) if x in EMBEDDINGS and x not in places]


def queries_of(detector: Any, call: Call) -> Queries:
    """The queries of a call of the detector's decoder."""
    return {name: call.arguments[name].detach() for name in shared_inputs(detector)}


def predict(detector: Any, call: Call) -> Outputs:
    """Run the head on what a call of the decoder returned; no hooks of the head are called."""
    outputs = call.outputs
    hidden, *references = [outputs] if isinstance(outputs, Tensor) else outputs
    if isinstance(detector, DeformableDETR) and not isinstance(detector, DINO):
        # Its decoder leaves the first out.
        references = [[call.arguments["reference_points"], *references[0]]]
    logits, boxes = detector.bbox_head.forward(hidden, *references)
    return Outputs(logits[-1], boxes[-1], hidden[-1])


def decode(detector: Any, call: Call, queries: Mapping[str, Tensor]) -> Outputs:
    """Run decoder and head once more, on the memory of a call and other queries.

    Without dropout, so that it takes no random numbers, and no hooks of either are called.

    Args:
        detector: The detector.
        call: An earlier call of its decoder, on the same images.
        queries: The queries, by the names of :func:`shared_inputs`, ``[N, Q, D]`` each.

    Raises:
        kd_det.algorithms.WiringError: If the decoder takes others.
    """
    arguments = dict(call.arguments)
    _check_widths(detector, arguments, queries)
    own = arguments["query"]
    number = next(iter(queries.values())).shape[1]
    arguments["query"] = own.new_zeros(len(own), number, own.shape[-1])
    # A teacher may compute in another dtype.
    arguments.update((name, x.to(arguments[name].dtype)) for name, x in queries.items())
    if "self_attn_mask" in arguments:
        arguments["self_attn_mask"] = None  # that of denoising queries
    with _without_dropout(detector.decoder), _without_dropout(detector.bbox_head):
        outputs = detector.decoder.forward(**arguments)
        return predict(detector, Call(arguments, outputs))


def _check_widths(detector: Any, own: Mapping[str, Any], queries: Mapping[str, Tensor]) -> None:
    expected = {name: own[name].shape[-1] for name in shared_inputs(detector)}
    found = {name: value.shape[-1] for name, value in queries.items()}
    if found != expected:
        raise WiringError(
            f"kd_det.SharedQueries: the decoder of the {type(detector).__name__} takes queries of "
            f"{expected} numbers, found {found}; where only the width of embeddings differs, name "
            "a kd_det.QueryConnector as connector of the student's recorder"
        )


@contextmanager
def _without_dropout(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
