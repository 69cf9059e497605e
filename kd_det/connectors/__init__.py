"""Connectors: modules that make the student's features comparable to the teacher's."""

from __future__ import annotations

from kd_det.connectors.embedding import EmbeddingConnector
from kd_det.connectors.pyramid import PyramidConnector
from kd_det.connectors.query import QueryConnector
from kd_det.connectors.review import ReviewFusion

__all__ = ["EmbeddingConnector", "PyramidConnector", "QueryConnector", "ReviewFusion"]
