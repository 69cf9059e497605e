"""A student as one ONNX file: network, decoding and NMS, checked against PyTorch.

``detector`` is the module that is exported, ``dense`` and ``two_stage`` decode what heads predict
for a whole batch, ``ops`` has what they share, ``file`` writes, ``runtime`` runs and ``check``
compares.
"""
