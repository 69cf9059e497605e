# What ReviewKD compares of mmpretrain's ResNets: each stage before its last ReLU, the last one that
# the last block calls, and the pooled feature.
pooled = dict(type="ModuleInputs", source="head.fc", data_idx=0)
blocks_of = dict(
    r18=(2, 2, 2, 2), r34=(3, 4, 6, 3), r50=(3, 4, 6, 3), r101=(3, 4, 23, 3), r152=(3, 8, 36, 3)
)
stages_of = {
    name: dict(
        stages=dict(
            type="kd_det.Pyramid",
            levels=[
                *[
                    dict(
                        type="ModuleInputs",
                        source=f"backbone.layer{stage}.{blocks - 1}.relu",
                        record_idx=-1,
                        data_idx=0,
                    )
                    for stage, blocks in enumerate(numbers, start=1)
                ],
                pooled,
            ],
        )
    )
    for name, numbers in blocks_of.items()
}
# Those of kd_det's CifarResNet, the student's after ReLU (which needs out_indices=(0, 1, 2)).
cifar_stages = dict(
    before_relu=dict(
        stages=dict(
            type="kd_det.Pyramid",
            levels=["backbone.layer1", "backbone.layer2", "backbone.layer3", pooled],
        )
    ),
    after_relu=dict(
        stages=dict(
            type="kd_det.Pyramid",
            levels=[
                *[dict(type="ModuleOutputs", source="backbone", data_idx=i) for i in (0, 1, 2)],
                pooled,
            ],
        )
    ),
)
