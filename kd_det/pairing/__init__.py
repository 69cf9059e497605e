"""From two detectors and a method to a whole config: what ``tools/distill.py`` runs on.

``compose`` puts it together: ``detectors`` reads both sides, ``data`` and ``coco_folder`` the data,
``distiller`` fits recorders, connectors and losses, ``schedule`` the length, ``text`` writes it.
Nothing is imported here, so that ``methods`` can be listed without waiting for mmdet.
"""
