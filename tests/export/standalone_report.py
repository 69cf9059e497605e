"""A process without kd_det and mmrazor that runs an exported student; it prints JSON at the end.

python standalone_report.py det|cls FOLDER IMAGE...
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import torch

BLOCKED = ("kd_det", "mmrazor")


class Block(MetaPathFinder):
    """Lets no import of ``BLOCKED`` come through."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname.split(".")[0] in BLOCKED:
            raise ImportError(f"{fullname} is blocked")


def main() -> None:
    kind, folder, *images = sys.argv[1:]
    config, weights = (str(Path(folder) / name) for name in ("config.py", "model.pth"))
    torch.load(weights, weights_only=True)  # by plain torch, which nothing has patched yet
    block()
    if kind == "det":
        from mmdet.apis import DetInferencer

        found = DetInferencer(config, weights, device="cpu")(images)["predictions"]
    else:
        from mmpretrain.apis import ImageClassificationInferencer

        inferencer = ImageClassificationInferencer(config, pretrained=weights, device="cpu")
        found = [{**each, "pred_scores": each["pred_scores"].tolist()}
                 for each in inferencer(images)]  # fmt: skip
    metrics = test(config, weights)
    for name in BLOCKED:
        assert not any(module.split(".")[0] == name for module in sys.modules), name
    print(json.dumps(dict(metrics=metrics, found=found), default=float))


def block() -> None:
    # A machine that has mmcv-lite has no mmcv.ops but those that kd_det.compat puts in its place,
    # and a compiled mmcv for current torch is no part of the test environment. So the stack is
    # patched first, its kernels included; from here on nothing can be had of the package.
    for module in ("kd_det", "mmcv.ops"):
        import_module(module)
    for module in [name for name in sys.modules if name.split(".")[0] in BLOCKED]:
        del sys.modules[module]
    sys.meta_path.insert(0, Block())


def test(config: str, weights: str) -> dict[str, float]:
    """What the exported config's own evaluation finds."""
    from mmengine.config import Config
    from mmengine.runner import Runner

    cfg = Config.fromfile(config)
    cfg.update(load_from=weights, work_dir=str(Path(weights).parents[1] / "standalone"))
    return Runner.from_cfg(cfg).test()


if __name__ == "__main__":
    main()
