"""Queries that two decoders share, the recorder of their outputs, and that of encoders."""

from kd_det.algorithms.query.decoder import (
    Call,
    Outputs,
    Queries,
    decode,
    embedded_inputs,
    find_kind,
    predict,
    queries_of,
    shared_inputs,
)
from kd_det.algorithms.query.matching import match, rules
from kd_det.algorithms.query.memory import MemoryRecorder
from kd_det.algorithms.query.recorder import SharedQueriesRecorder, draw

__all__ = [
    "Call",
    "MemoryRecorder",
    "Outputs",
    "Queries",
    "SharedQueriesRecorder",
    "decode",
    "draw",
    "embedded_inputs",
    "find_kind",
    "match",
    "predict",
    "queries_of",
    "rules",
    "shared_inputs",
]
