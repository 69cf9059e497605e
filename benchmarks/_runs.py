"""Training runs of the recipes in configs/digits, on digits-coco or on another COCO folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from _trainings import checkpoint, run_all, training, write_config
from mmengine.config import Config

from kd_det.commands.steps import Step, run_steps
from kd_det.datasets.coco import read_annotations
from kd_det.recipes import load_named

CONFIGS = Path("configs/digits")
METRIC = "coco/bbox_mAP"
Change = Callable[[Config], None]


@dataclass(frozen=True)
class Data:
    """A COCO folder: ``annotations/instances_<split>.json`` beside ``<split>/``.

    Args:
        root: The folder.
        scale: Width and height that images are fitted into.
        epochs: Of the student.
        teacher_epochs: Of the teacher.
        judge: The split that all models are evaluated on.
    """

    root: Path
    scale: tuple[int, int]
    epochs: int
    teacher_epochs: int
    judge: str = "val"

    def annotation_file(self, split: str) -> Path:
        """Raises ``FileNotFoundError`` if the folder has none for this split."""
        path = self.root / "annotations" / f"instances_{split}.json"
        if not path.is_file():
            names = ", ".join(f"annotations/instances_{s}.json" for s in ("train", self.judge))
            raise FileNotFoundError(
                f"expected a COCO folder with {names}, train/ and {self.judge}/, found no {path}"
            )
        return path

    @property
    def digest(self) -> str:
        """Of the annotations."""
        files = [self.annotation_file(split) for split in ("train", self.judge)]
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the file, which is that of mmdet's labels."""
        return tuple(
            c["name"] for c in read_annotations(self.annotation_file("train"))["categories"]
        )


def adapted(recipe: str, data: Data, seed: int, epochs: int) -> Config:
    """A recipe of configs/digits for other data and another length."""
    cfg = load_named(CONFIGS / f"{recipe}.py")
    for part, split in (("train", "train"), ("val", data.judge), ("test", data.judge)):
        # Batches are made by the process that uses them: there is a run on every core.
        loader = cfg[f"{part}_dataloader"]
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(data.root)
        loader.dataset.metainfo = dict(classes=data.classes)
        loader.dataset.ann_file = str(data.annotation_file(split).absolute())
        loader.dataset.data_prefix = dict(img=f"{split}/")
        for transform in loader.dataset.pipeline:
            if transform["type"] == "Resize":
                transform["scale"] = data.scale
        if part != "train":
            cfg[f"{part}_evaluator"].ann_file = loader.dataset.ann_file
    for detector in (cfg.model, cfg.model.get("architecture"), cfg.model.get("teacher")):
        if detector is not None and "roi_head" in detector:
            detector.roi_head.bbox_head.num_classes = len(data.classes)
    for loss in cfg.model.get("distiller", {}).get("distill_losses", {}).values():
        if "num_classes" in loss:
            loss.num_classes = len(data.classes)
    cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs)
    cfg.param_scheduler[-1].T_max = epochs
    cfg.default_hooks.checkpoint.interval = max(1, epochs // 4)
    cfg.randomness = dict(seed=seed)
    cfg.data_digest = data.digest  # other data under the same path makes other results
    return cfg


class Study:
    """Runs under one root that share data, teacher and class centers; all can be resumed."""

    def __init__(self, root: Path, data: Data) -> None:
        self.root = root
        self.data = data
        self.teacher = training(
            root, "teacher", adapted("teacher", data, 0, data.teacher_epochs), []
        )
        self.centers = self._centers()

    def run(self, steps: Iterable[Step], jobs: int) -> None:
        """Run students side by side, each with its share of the cores, after what they use.

        Raises:
            StepError: If steps failed, after all others ran; names them.
        """
        steps = list(steps)
        run_steps([self.teacher])
        if any(self.centers in step.inputs for step in steps):
            run_steps([self.centers])
        run_all(steps, jobs)

    def student(
        self,
        recipe: str,
        seed: int,
        epochs: int | None = None,
        change: Change | None = None,
        name: str = "",
    ) -> Step:
        """The training of a student.

        Args:
            recipe: A method, or the name of a file in configs/digits.
            seed: Of weights and batches.
            epochs: Length; None for the data's own.
            change: What is different from the recipe.
            name: What it is called in folder names; the recipe's name if not given.
        """
        epochs = epochs or self.data.epochs
        cfg = adapted(recipe, self.data, seed, epochs)
        inputs = []
        if "teacher" in cfg.model:
            cfg.model.teacher_ckpt = str(checkpoint(self.teacher))
            inputs.append(self.teacher)
            for hook in cfg.get("custom_hooks", []):
                if hook.type == "kd_det.ClassCenterHook":
                    hook.file = str(self.centers.results[0])
                    inputs.append(self.centers)
        if change is not None:
            change(cfg)
        return training(self.root, f"{name or recipe}_e{epochs}_s{seed}", cfg, inputs)

    def _centers(self) -> Step:
        cfg = adapted("kd_nd", self.data, 0, 1)
        cfg.model.teacher_ckpt = str(checkpoint(self.teacher))
        folder = self.root / "centers"
        config = write_config(self.root, "centers", cfg)
        command = ["-m", "kd_det", "centers", str(config), "--work-dir", str(folder)]
        result = folder / "class_centers.safetensors"
        return Step("centers", command, folder, str(config), [self.teacher], results=[result])
