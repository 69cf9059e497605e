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
