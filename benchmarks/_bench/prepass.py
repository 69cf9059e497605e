"""The pre-pass for class centers against the teacher's own work, and what COCO would take."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.runner import Runner

from _bench.pairs import SHAPES, Shape, build, recipe
from _bench.report import Against, Row, time_rows
from _bench.timing import Budget, interleave
from kd_det.algorithms import roi
from kd_det.centers import ClassCenters
from kd_det.datasets import make_digits_coco
from kd_det.hooks._seeded_data import spread_loader
from kd_det.hooks.prepass import PrePass

IMAGES = 32
COCO_IMAGES = 118_287
# RoIs of a batch, their embedding, and COCO's classes with background.
ROIS, DIM, CLASSES = 1024, 1024, 81


def measure(budget: Budget, shape: str) -> list[Row]:
    """Rows of this suite."""
    case = f"N {ROIS}, D {DIM}, C {CLASSES}"
    against = {"ClassCenters.update": Against(["row by row"], "", 20, at_least=True)}
    rows = time_rows("prepass", case, interleave(_accumulations(budget), budget), against)
    with tempfile.TemporaryDirectory() as folder:
        return rows + _of_images(budget, shape, Path(folder))


def _accumulations(budget: Budget) -> dict[str, Callable[[], object]]:
    torch.manual_seed(0)
    emb = torch.randn(ROIS, DIM, device=budget.device)
    labels = torch.randint(0, CLASSES, (ROIS,), device=budget.device)
    centers = ClassCenters(CLASSES, DIM)
    sums = torch.zeros(CLASSES, DIM, dtype=torch.float64, device=budget.device)
    counts = [0] * CLASSES

    def row_by_row() -> None:
        for row, label in zip(emb, labels):
            sums[int(label)] += row
            counts[int(label)] += 1

    return {"ClassCenters.update": lambda: centers.update(emb, labels), "row by row": row_by_row}


def _of_images(budget: Budget, shape: str, folder: Path) -> list[Row]:
    make_digits_coco(folder / "data", image_size=128, train_images=IMAGES, val_images=1)
    prepass = PrePass(runner_on_digits(SHAPES[shape], folder, budget.device), "sampled", None)
    work: dict[str, Callable[[], object]] = {
        "pre-pass": prepass.run,
        "loader and teacher alone": lambda: _floor(prepass),
    }
    against = {"pre-pass": Against(["loader and teacher alone"], "", 1.05)}
    case = f"{shape}, {IMAGES} images"
    rows = time_rows("prepass", case, interleave(work, budget), against)
    each = rows[0].value / 1000 / IMAGES
    hours = {n: COCO_IMAGES * each / 3600 / n for n in (1, 8)}
    return [
        *rows,
        Row("prepass", case, "images a second", 1 / each, "images/s"),
        *(
            Row("prepass", case, f"118k images at that rate, {n} devices", h, "hours")
            for n, h in hours.items()
        ),
    ]


def runner_on_digits(shape: Shape, folder: Path, device: torch.device, workers: int = 0) -> Runner:
    """A Runner on the digits in ``folder / 'data'``, enlarged to the images of the shape."""
    height, width = shape.image
    cfg = recipe(shape, "kd_nd")
    loader = recipe(SHAPES["digits"], "kd_nd").train_dataloader
    loader.update(batch_size=shape.batch, num_workers=workers, persistent_workers=False)
    loader.dataset.data_root = str(folder / "data")
    for transform in loader.dataset.pipeline:
        if transform["type"] == "Resize":
            transform["scale"], transform["keep_ratio"] = (width, height), False
    if shape.recipes != SHAPES["digits"].recipes:
        loader.dataset.metainfo = dict(classes=tuple(map(str, range(80))))
    runner = Runner(
        model=build(cfg.model).to(device),
        work_dir=str(folder / "work"),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=cfg.optim_wrapper,
        default_scope="mmdet",
        log_level="ERROR",
        experiment_name=f"prepass_{folder.name}",
        cfg=dict(train_dataloader=loader),  # which the pre-pass makes its own loader of
    )
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    return runner


@torch.no_grad()
def _floor(prepass: PrePass) -> None:
    """The loader, and the teacher's pyramid, proposals and box head; nothing is kept."""
    model = prepass.model
    for batch in spread_loader(prepass.runner, len(prepass.runner.train_dataloader.dataset)):
        data = model.data_preprocessor(batch, training=False)
        inputs = model.teacher_input(data["inputs"], data["data_samples"])
        for _ in roi.score_proposals(model.teacher, inputs, data["data_samples"]):
            pass
