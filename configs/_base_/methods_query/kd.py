# KD-DETR: classes and boxes of queries that both decoders answer, arXiv 2211.08071.
_base_ = ["../frcnn_pair.py", "../query_losses.py"]

model = dict(distiller=_base_.with_queries)
