"""From two detectors and a method to a whole config: what ``tools/distill.py`` runs on.

``compose`` puts it together: ``detectors`` reads both sides, ``data`` and ``coco_folder`` the data,
``alone`` makes the student's own training of it, brought to a length by ``schedule`` and
``schedulers``; ``distiller`` fits recorders, connectors and losses for the teacher that is added,
``text`` writes both, and ``dry_run`` tries the result.
Nothing is imported here, so that ``methods`` can be listed without waiting for mmdet.
"""
