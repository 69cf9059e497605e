# What pairs of classifiers have in common: they say what is different.
student = dict(
    type="mmpretrain.ImageClassifier",
    neck=dict(type="mmpretrain.GlobalAveragePooling"),
    head=dict(type="mmpretrain.LinearClsHead", loss=dict(type="mmpretrain.CrossEntropyLoss")),
)
teacher = student

# Where the embeddings differ in size, a pair names a connector and sends the student's through it.
nd_connectors = dict()
nd_route = dict()
centers = dict(type="kd_det.ClassCenterHook")
# The embedding as ReviewKD's deepest level: a feature without spatial extent.
pooled = dict(type="ModuleInputs", source="head.fc", data_idx=0)
