"""Built-in sample data: small sets, made in seconds, to try a recipe on."""

from __future__ import annotations

from .digits import Digits
from .digits_coco import PALETTE, DigitsCoco, make_digits_coco
from .digits_drawing import CLASSES

__all__ = ["CLASSES", "PALETTE", "Digits", "DigitsCoco", "make_digits_coco"]
