"""Two Faster R-CNNs with ImageNet's EfficientNet-Lite on a folder of photographs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from _trainings import checkpoint, training, write_config
from mmengine.config import Config

from kd_det.commands.steps import Step, run_steps
from kd_det.datasets.formats.detection_set import divide
from kd_det.datasets.prepared import prepare
from kd_det.files import write_atomically
from kd_det.pairing.compose import pair

Change = Callable[[Config], None]
FRCNN = "mmdet::_base_/models/faster-rcnn_r50_fpn.py"
CHANNELS = dict(lite0=[24, 40, 112, 320], lite2=[24, 48, 120, 352])
# Backbone, channels of the pyramid, size of the embedding.
DETECTORS = dict(teacher=("lite2", 96, 256), lite0=("lite0", 96, 256), narrow=("lite0", 64, 128))
# A part of a data set judges what was chosen only if it is not tiny.
FEWEST_IMAGES = 20


def detector(name: str, classes: int, weights: Path) -> dict[str, Any]:
    """The config of a detector for images of about 200 pixels.

    Args:
        name: Of :data:`DETECTORS`.
        classes: Their number.
        weights: Folder of what ``photos_weights.py`` wrote.
    """
    lite, channels, size = DETECTORS[name]
    cfg = Config.fromstring(f"_base_ = [{FRCNN!r}]", ".py")
    changes = dict(
        data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True),
        backbone=dict(
            _delete_=True,
            type="mmpretrain.TIMMBackbone",
            model_name=f"tf_efficientnet_{lite}",
            features_only=True,
            out_indices=(1, 2, 3, 4),
            init_cfg=dict(type="Pretrained", checkpoint=str((weights / f"{lite}.pth").absolute())),
        ),
        neck=dict(in_channels=CHANNELS[lite], out_channels=channels),
        # Images, and objects in them, have a quarter of COCO's size.
        rpn_head=dict(
            in_channels=channels, feat_channels=channels, anchor_generator=dict(scales=[4])
        ),
        roi_head=dict(
            bbox_roi_extractor=dict(
                out_channels=channels, finest_scale=28, roi_layer=dict(sampling_ratio=1)
            ),
            bbox_head=dict(in_channels=channels, fc_out_channels=size, num_classes=classes),
        ),
        train_cfg=dict(
            rpn=dict(sampler=dict(num=128)),
            rpn_proposal=dict(nms_pre=400, max_per_img=200),
            rcnn=dict(sampler=dict(num=128)),
        ),
        test_cfg=dict(rpn=dict(nms_pre=400, max_per_img=200)),
    )
    cfg.merge_from_dict(dict(model=changes))
    model: dict[str, Any] = cfg.model.to_dict()
    return model


@dataclass(frozen=True)
class Setting:
    """What all runs of one table share.

    Args:
        root: Folder of the runs.
        data: The photographs, in any format that is read.
        weights: Folder of ``lite0.pth`` and ``lite2.pth``.
        side: Pixels that images are fitted into.
        student: Of :data:`DETECTORS`.
        teacher_epochs: Length of the teacher's training.
    """

    root: Path
    data: Path
    weights: Path
    side: int
    student: str
    teacher_epochs: int

    @cached_property
    def parts(self) -> dict[str, dict[str, Any]]:
        """Settings of the datasets to learn from, to choose methods by, and to report.

        Where a set has no third part, a fifth of its training images is what methods are chosen by.
        """
        prepared = prepare(self.data, self.root)
        prepared.require_no_errors()
        parts, found = dict(prepared.found.parts), dict(prepared.annotations)
        classes = found["train"].classes
        if "test" in parts and parts["test"].count >= FEWEST_IMAGES:
            chosen = dict(learn=found["train"], choose=found["val"], report=found["test"])
            contents = {name: each.data for name, each in chosen.items()}
        else:
            chosen = dict(learn=found["train"], choose=found["train"], report=found["val"])
            parts["train"].data = found["train"].data
            learn, choose, _ = divide(parts["train"], 0.2, seed=0)
            contents = dict(learn=learn.data, choose=choose.data, report=found["val"].data)
        datasets = {}
        for name, each in chosen.items():
            path = self.root / "data" / f"{name}.json"
            content = json.dumps(contents[name]).encode("ascii")
            if not path.is_file() or path.read_bytes() != content:
                write_atomically(path, content)
            datasets[name] = dict(
                type="CocoDataset",
                ann_file=str(path.absolute()),
                data_prefix=dict(img=f"{each.images.absolute()}/"),
                metainfo=dict(classes=classes),
            )
        return datasets

    @property
    def classes(self) -> int:
        return len(self.parts["learn"]["metainfo"]["classes"])

    def config(self, name: str, epochs: int, seed: int) -> Config:
        """The training of a detector alone."""
        return Config(
            dict(
                default_scope="mmdet",
                model=detector(name, self.classes, self.weights),
                **self._data(),
                **schedule(epochs),
                randomness=dict(seed=seed),
                env_cfg=dict(mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0)),
                visualizer=dict(
                    type="DetLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")]
                ),
                log_processor=dict(type="LogProcessor", window_size=25, by_epoch=True),
                load_from=None,
                resume=False,
            )
        )

    def _data(self) -> dict[str, Any]:
        resize = dict(type="Resize", scale=(self.side, self.side), keep_ratio=True)
        read = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True)]
        keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
        flipped = [
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackDetInputs", meta_keys=(*keys, "flip", "flip_direction")),
        ]
        plain = [dict(type="PackDetInputs", meta_keys=keys)]
        settings: dict[str, Any] = {}
        for part, split in (("train", "learn"), ("val", "choose"), ("test", "report")):
            train = part == "train"
            dataset = dict(
                self.parts[split], pipeline=[*read, resize, *(flipped if train else plain)]
            )
            if not train:
                dataset["test_mode"] = True
                settings[f"{part}_cfg"] = dict(type=f"{part.title()}Loop")
                settings[f"{part}_evaluator"] = dict(
                    type="CocoMetric", ann_file=dataset["ann_file"], metric="bbox"
                )
            settings[f"{part}_dataloader"] = dict(
                batch_size=4 if train else 8,
                num_workers=0,
                sampler=dict(type="DefaultSampler", shuffle=train),
                dataset=dataset,
            )
        return settings

    def run_teacher(self) -> Step:
        """Train the teacher, unless that is done; students can be paired with it then."""
        step = training(
            self.root, "teacher", self.config("teacher", self.teacher_epochs, seed=0), []
        )
        run_steps([step])
        return step

    def plain(self, epochs: int, seed: int) -> Step:
        """The training of the student alone."""
        cfg = self.config(self.student, epochs, seed)
        return training(self.root, f"{self.student}_plain_e{epochs}_s{seed}", cfg, [])

    def student_of(
        self,
        teacher: Step,
        centers: Step | None,
        method: str,
        epochs: int,
        seed: int,
        change: Change | None = None,
        name: str = "",
    ) -> Step:
        """The training of the student by a method, as ``kd-det distill`` pairs the two."""
        cfg = self._pair(teacher, method, epochs, seed)
        inputs = [teacher]
        for hook in cfg.get("custom_hooks", []):
            if hook.type == "kd_det.ClassCenterHook" and centers is not None:
                hook.file = str(centers.results[0])
                inputs.append(centers)
        if change is not None:
            change(cfg)
        return training(
            self.root, f"{self.student}_{name or method}_e{epochs}_s{seed}", cfg, inputs
        )

    def centers(self, teacher: Step) -> Step:
        """The class centers that all students share, whichever they are."""
        cfg = replace(self, student="lite0")._pair(teacher, "kd_nd", 1, 0)
        folder = self.root / "centers"
        config = write_config(self.root, "centers", cfg)
        command = ["-m", "kd_det", "centers", str(config), "--work-dir", str(folder)]
        result = folder / "class_centers.safetensors"
        return Step("centers", command, folder, str(config), [teacher], results=[result])

    def _pair(self, teacher: Step, method: str, epochs: int, seed: int) -> Config:
        student = write_config(
            self.root, f"{self.student}_e{epochs}_s{seed}", self.config(self.student, epochs, seed)
        )
        cfg = pair(
            str(student), str(teacher.config), method, str(checkpoint(teacher)),
            work_dir=str(self.root / "pairs"),
        ).cfg  # fmt: skip
        # The same teacher each time, whose accuracy is in the table.
        cfg.default_hooks.pop("teacher_accuracy", None)
        cfg.default_hooks.checkpoint.pop("save_best", None)
        return cfg


def report_step(run: Step) -> Step:
    """The evaluation of a finished run on the part that chose nothing."""
    out = run.folder.parent / "reports" / run.name / "report.json"
    command = ["-m", "kd_det", "test", str(run.config), str(checkpoint(run)), "--out", str(out)]
    command += ["--work-dir", str(out.parent)]
    return Step(f"{run.name} report", command, out.parent, str(run.config), [run], results=[out])


def schedule(epochs: int) -> dict[str, Any]:
    """AdamW with a warm-up and a cosine, and the hooks of a training."""
    return dict(
        train_cfg=dict(
            type="EpochBasedTrainLoop", max_epochs=epochs, val_interval=max(1, epochs // 4)
        ),
        optim_wrapper=dict(
            type="OptimWrapper",
            optimizer=dict(type="AdamW", lr=5e-4, weight_decay=0.05),
            clip_grad=dict(max_norm=10),
        ),
        param_scheduler=[
            dict(type="LinearLR", start_factor=0.01, by_epoch=False, end=50),
            dict(
                type="CosineAnnealingLR",
                by_epoch=True,
                begin=0,
                T_max=epochs,
                convert_to_iter_based=True,
            ),
        ],
        default_hooks=dict(
            timer=dict(type="IterTimerHook"),
            logger=dict(type="LoggerHook", interval=25),
            param_scheduler=dict(type="ParamSchedulerHook"),
            checkpoint=dict(type="CheckpointHook", interval=max(1, epochs // 4), max_keep_ckpts=1),
            sampler_seed=dict(type="DistSamplerSeedHook"),
            exact_resume=dict(type="kd_det.ExactResumeHook"),
            finite_loss=dict(type="kd_det.FiniteLossHook"),
            student_export=None,
        ),
    )
