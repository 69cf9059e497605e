"""A student as one ONNX file: network, decoding and NMS, checked against PyTorch.

``student`` exports and checks that of a run: ``detector`` is the module that is exported,
``dense``, ``two_stage`` and ``query`` decode its heads for a whole batch by the operators of
``ops``, ``file`` writes, ``runtime`` runs, ``check`` compares with PyTorch, and ``validation`` has
the images.
"""
