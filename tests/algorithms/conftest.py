"""Tests of the algorithms import mmdet by themselves."""

import kd_det  # noqa: F401 - before any test module imports mmdet
