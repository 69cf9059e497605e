"""What the page makes of its parts."""

from __future__ import annotations

import re

from kd_det.report.page import Section, render
from kd_det.report.pictures import Box, Picture


def test_texts_of_boxes_go_towards_the_middle():
    """A long class name beside the right edge would be cut off there."""
    boxes = [Box(10, 50, 40, 40, "left", None), Box(440, 50, 30, 40, "right", None)]
    picture = Picture("a.jpg", "data:,", 480, 360, {"ground truth": boxes}, {})
    page = render("", [Section("Pictures", "", pictures=[picture])], "")
    assert re.search(r'<text x="13" y="44">left<', page)
    assert re.search(r'<text x="467" text-anchor="end" y="44">right<', page)
