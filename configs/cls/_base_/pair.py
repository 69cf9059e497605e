# What pairs of classifiers have in common: they say what is different.
_base_ = "./resnet_stages.py"

student = dict(
    type="mmpretrain.ImageClassifier",
    neck=dict(type="mmpretrain.GlobalAveragePooling"),
    head=dict(type="mmpretrain.LinearClsHead", loss=dict(type="mmpretrain.CrossEntropyLoss")),
)
teacher = student

# Where the embeddings differ in size, a pair names a connector and sends the student's through it.
nd_connectors = dict()
nd_route = dict()
centers = [
    dict(type="kd_det.ClassCenterHook"),
    dict(type="kd_det.EmbeddingMonitorHook"),
]
