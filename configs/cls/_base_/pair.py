# What follows from the method of a pair: its hooks, and which loss is warmed up (all but ND are).
_base_ = "./resnet_stages.py"
method = "{{$KD_DET_METHOD:kd_nd}}"

warmed_loss = "loss_" + method.removesuffix("_nd")
center_hooks = [
    dict(type="kd_det.ClassCenterHook"),
    dict(type="kd_det.EmbeddingMonitorHook"),
]
if not method.endswith("_nd"):
    center_hooks = []
