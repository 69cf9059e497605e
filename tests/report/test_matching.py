"""Right detections, thresholds and differences, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from kd_det.report.matching import best_threshold, f1, most_different, right

TRUE = np.array([[0, 0, 10, 10], [20, 20, 40, 40]])


def test_an_object_is_found_once_by_the_highest_score():
    boxes = np.array([[0, 0, 10, 9], [0, 0, 10, 10], [20, 20, 40, 35], [50, 50, 60, 60]])
    scores = np.array([0.5, 0.9, 0.8, 0.7])
    found = right(boxes, scores, np.zeros(4, int), TRUE, np.zeros(2, int))
    assert found.tolist() == [False, True, True, False]


def test_class_and_overlap_must_fit():
    boxes = np.array([[0, 0, 10, 10], [20, 20, 40, 29]])  # an IoU of 0.45
    assert not right(boxes, np.ones(2), np.array([1, 0]), TRUE, np.zeros(2, int)).any()
    boxes[1, 3] = 30  # of 0.5
    found = right(boxes, np.ones(2), np.array([1, 0]), TRUE, np.zeros(2, int))
    assert found.tolist() == [False, True]


def test_nothing_is_right_where_there_is_nothing():
    none = np.zeros((0, 4))
    assert right(none, np.zeros(0), np.zeros(0, int), TRUE, np.zeros(2, int)).shape == (0,)
    assert right(TRUE, np.ones(2), np.zeros(2, int), none, np.zeros(0, int)).tolist() == [False] * 2


def test_threshold_is_where_f1_is_highest():
    """With 4 objects F1 is 2/5, 4/6, 4/7, 6/8, 6/9 from the highest score down."""
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    correct = np.array([True, True, False, True, False])
    assert best_threshold(scores, correct, 4) == 0.6
    shuffled = [3, 0, 4, 2, 1]
    assert best_threshold(scores[shuffled], correct[shuffled], 4) == 0.6
    assert best_threshold(np.zeros(0), np.zeros(0, bool), 4) == 1.0


def test_f1_of_an_image():
    assert f1(np.array([True, True, False]), 4) == pytest.approx(4 / 7)
    assert f1(np.zeros(0, bool), 0) == 1.0
    assert f1(np.zeros(0, bool), 2) == 0.0


def test_most_different_come_first_and_equal_ones_not_at_all():
    assert most_different([0.0, 0.5, 1.0, 0.3], [0.1, 0.5, 0.2, 0.6], 9) == [2, 3, 0]
    assert most_different([0.0, 0.5, 1.0], [0.1, 0.5, 0.2], 1) == [2]
