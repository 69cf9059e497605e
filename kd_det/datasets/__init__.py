"""Built-in sample data: a small detection set, made in seconds, to try a recipe on."""

from .digits_coco import CLASSES, PALETTE, DigitsCoco, make_digits_coco

__all__ = ["CLASSES", "PALETTE", "DigitsCoco", "make_digits_coco"]
