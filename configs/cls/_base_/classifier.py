# A classifier with a linear head behind a global average; recipes set backbone and head.
model = dict(
    type="mmpretrain.ImageClassifier",
    neck=dict(type="mmpretrain.GlobalAveragePooling"),
    head=dict(type="mmpretrain.LinearClsHead", loss=dict(type="mmpretrain.CrossEntropyLoss")),
)
