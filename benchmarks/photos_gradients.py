"""How large each loss is when training begins, and the gradient that it sends into the pyramid.

Of one batch, by the trained teacher of photos.py and a student that has not learnt yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from _photos import Setting
from mmengine.config import Config
from mmengine.runner import Runner
from photos import PROG, add_setting, setting_of, student
from torch import Tensor, nn

from kd_det.centers import ClassCenters
from kd_det.commands import common
from kd_det.commands.steps import Step, run_steps


def main() -> None:
    parser = common.make_parser(PROG.replace("photos", "photos_gradients"), __doc__, "%(prog)s")
    add_setting(parser)
    parser.add_argument("--methods", nargs="+", required=True, metavar="METHOD")
    args = parser.parse_args()
    setting = setting_of(args)
    teacher = setting.run_teacher()
    centers = setting.centers(teacher)
    run_steps([centers])
    print(
        "| method | loss | value | gradient of the neck | of the box head |\n|---|---|---|---|---|"
    )
    for name in args.methods:
        for line in rows(setting, teacher, centers, name):
            print(line, flush=True)


def rows(setting: Setting, teacher: Step, centers: Step, name: str) -> Iterable[str]:
    """Lines of the table for a method."""
    cfg = Config.fromfile(student(setting, teacher, centers, name, 1, 0).config)
    losses, model = first_losses(cfg, centers)
    neck = list(model.architecture.neck.parameters())
    head = list(model.architecture.roi_head.bbox_head.shared_fcs.parameters())
    task = [value for key, value in losses.items() if key.startswith("student.")]
    named = {"of the task": torch.stack(task).sum()}
    named |= {key: value for key, value in losses.items() if key.startswith("distill.")}
    for key, value in named.items():
        norms = (gradient_norm(value, part) for part in (neck, head))
        figures = " | ".join(f"{x:.2f}" for x in (float(value), *norms))
        yield f"| {name} | {key.removeprefix('distill.')} | {figures} |"


def first_losses(cfg: Config, centers: Step) -> tuple[dict[str, Tensor], Any]:
    """The losses of the first batch, by name, and the model."""
    cfg.work_dir = str(centers.folder / "gradients")
    for part in ("val", "test"):
        cfg.update({f"{part}_{what}": None for what in ("dataloader", "cfg", "evaluator")})
    cfg.update(custom_hooks=[], default_hooks={})
    runner = Runner.from_cfg(cfg)
    model: Any = runner.model
    model.init_weights()
    for loss in model.distiller.distill_losses.values():
        if hasattr(loss, "set_centers"):
            loss.set_centers(ClassCenters.load(centers.results[0]))
    torch.manual_seed(0)
    batch = next(iter(runner.build_dataloader(cfg.train_dataloader, seed=0)))
    found = model.train()(**model.data_preprocessor(batch, training=True), mode="loss")
    return {
        key: torch.stack(value).sum() if isinstance(value, list) else value
        for key, value in found.items()
        if "loss" in key
    }, model


def gradient_norm(loss: Tensor, parameters: Iterable[nn.Parameter]) -> float:
    """Norm of a loss's gradient; parameters that it does not reach have none."""
    found = torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)
    return float(sum(x.square().sum() for x in found if x is not None)) ** 0.5


if __name__ == "__main__":
    common.run(main)
