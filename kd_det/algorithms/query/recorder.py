"""Record what both sides' decoders make of the same queries."""

from __future__ import annotations

from typing import Any

import torch
from mmrazor.models.task_modules.recorder.base_recorder import BaseRecorder
from torch import Tensor, nn

from kd_det.algorithms.query.decoder import Call, Queries, find_kind
from kd_det.errors import InvalidInputError
from kd_det.registry import TASK_UTILS
from kd_det.seeds import SAMPLING, Seeds


@TASK_UTILS.register_module()
class SharedQueriesRecorder(BaseRecorder):
    """Predictions of queries that both sides share: ``type='kd_det.SharedQueries'`` in a config.

    The decoder of a DETR has queries of its own, in an order of its own: two decoders' predictions
    do not correspond. They do where both answer the same queries, the *distillation points* of
    KD-DETR. On both sides a recorder of one name and the same options shares one set of them:

    .. code-block:: python

        student_recorders=dict(queries=dict(type="kd_det.SharedQueries")),
        teacher_recorders=dict(queries=dict(type="kd_det.SharedQueries")),
        distill_losses=dict(loss_kd=dict(type="kd_det.QueryKDLoss")),
        loss_forward_mappings=dict(loss_kd=dict(
            s_logits=dict(recorder="queries", from_student=True, data_idx=0),
            t_logits=dict(recorder="queries", from_student=False, data_idx=0))),

    A record has, of the decoder's last layer, logits ``[N, Q, C]`` (``data_idx=0``), boxes
    ``[N, Q, 4]`` as centre, width and height relative to the image (1), and hidden states
    ``[N, Q, D]`` (2); with ``match``, of the queries that the teacher's assigner matches to
    objects, hidden states ``[n, D]`` (3) and classes ``[n]`` (4), for the ND loss. The student's
    own step is not changed: its decoder and head run once more,
    without dropout, on the memory of its encoder, and the gradient reaches all of the student but
    its own queries.

    Args:
        random: 0 for the teacher's own queries, which look where objects are (*specific sampling*
            of the paper). Otherwise the number of queries that are drawn in each step (*general
            sampling*): each number of a query uniformly between the least and the largest of the
            teacher's queries of the batch. The paper draws them uniformly too, and does not say
            from where for each kind of queries.
        match: Whether to match the teacher's own queries to objects.
        connector: Of the student's recorder, where the decoders have other widths: the name of a
            ``kd_det.QueryConnector`` among the distiller's connectors.

    Raises:
        ValueError: For a negative number, or ``match`` of queries that are drawn.
        TypeError: If the detector's decoder is of no known kind.

    Source: "KD-DETR: Knowledge Distillation for Detection Transformer with Consistent Distillation
    Points Sampling", arXiv 2211.08071. There the queries of both samplings may attend to one
    another; here each set is decoded alone, so that the teacher's answers to its own queries are
    those that it gives anyway.
    """

    def __init__(self, random: int = 0, match: bool = False, connector: str | None = None) -> None:
        if random < 0 or (random and match):
            raise InvalidInputError(
                "kd_det.SharedQueries needs random, a number of queries >= 0, and match with the "
                f"teacher's own queries alone, got random={random}, match={match}"
            )
        super().__init__("decoder")
        self.random = random
        self.match = match
        self.connector = connector
        self.call: Call | None = None
        self.recording = False

    def prepare_from_model(self, model: nn.Module | None = None) -> None:
        """Keep what the decoder is called with; refuse a detector of no known kind."""
        assert model is not None
        find_kind(model)
        decoder: Any = model.decoder
        decoder.register_forward_hook(self._keep, with_kwargs=True)

    def _keep(self, decoder: nn.Module, inputs: tuple, arguments: dict, outputs: Any) -> None:
        if self.recording:
            self.call = Call(arguments, outputs)

    def reset_data_buffer(self) -> None:
        """Drop the record, and what the decoder was called with."""
        super().reset_data_buffer()
        self.call = None

    def __enter__(self) -> None:
        super().__enter__()
        self.recording = True

    def __exit__(self, *exception: Any) -> None:
        self.recording = False


def draw(queries: Queries, number: int, *where: int) -> Queries:
    """Draw queries uniformly from the range of others, for each image and number of a query.

    Args:
        queries: Decoder inputs ``[N, Q, D]`` by name.
        number: How many to draw for each image.
        where: Numbers that say when: the same ones draw the same queries. No generator's state is
            changed.
    """
    generator = torch.Generator().manual_seed(Seeds(SAMPLING, *where).torch & (2**63 - 1))
    return {name: _draw(value, number, generator) for name, value in queries.items()}


def _draw(value: Tensor, number: int, generator: torch.Generator) -> Tensor:
    images, _, width = value.shape
    places = torch.rand(images, number, width, generator=generator).to(value)
    low, high = value.amin(dim=(0, 1)), value.amax(dim=(0, 1))
    return low + (high - low) * places
