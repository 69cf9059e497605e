"""From two detectors and a method to a whole config: the work of ``kd-det distill``.

``compose`` puts it together: ``detectors`` reads both sides, ``data`` the data,
``alone`` makes the student's own training of it, brought to a length by ``schedule`` and
``schedulers``; ``distiller`` fits recorders, connectors and losses for the teacher that is added,
``text`` writes both, and ``dry_run`` tries the result.
mmdet is not imported here, so that ``methods`` can be listed without waiting for it.
"""

from __future__ import annotations

from kd_det.errors import UserError


class PairingError(UserError, ValueError):
    """Two detectors that cannot be paired."""
