"""Data: built-in sample sets, made in seconds; readers and checks of what people have.

``formats`` reads labelled images of any usual format, ``inspection`` looks at them, ``writing``
writes what training reads, and ``prepared`` is all three.
"""

from __future__ import annotations

from .digits import Digits
from .digits_coco import PALETTE, DigitsCoco, make_digits_coco
from .digits_drawing import CLASSES

__all__ = ["CLASSES", "PALETTE", "Digits", "DigitsCoco", "make_digits_coco"]
