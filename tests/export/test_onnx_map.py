"""mAP of a file beside PyTorch's, on photographs of several shapes, padded in batches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from small_onnx import detector

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from kd_det.export.onnx.detector import OnnxDetector
from kd_det.export.onnx.file import export_onnx
from kd_det.export.onnx.runtime import OnnxSession
from kd_det.export.onnx.validation import MAP_TOLERANCE, Validation, pipeline

SIZES = ((120, 90), (90, 120), (128, 64), (100, 100))
NAMES = tuple("abcdefghij")


def write_data(folder: Path, boxes: list[tuple[int, list[float], int]]) -> None:
    annotations = [
        dict(
            id=number,
            image_id=image,
            bbox=[x1, y1, x2 - x1, y2 - y1],
            area=(x2 - x1) * (y2 - y1),
            category_id=label + 1,
            iscrowd=0,
        )
        for number, (image, (x1, y1, x2, y2), label) in enumerate(boxes, 1)
    ]
    images = [
        dict(id=number, file_name=f"{number}.png", width=width, height=height)
        for number, (width, height) in enumerate(SIZES)
    ]
    categories = [dict(id=number, name=name) for number, name in enumerate(NAMES, 1)]
    text = json.dumps(dict(images=images, annotations=annotations, categories=categories))
    (folder / "val.json").write_text(text)


def config(folder: Path) -> Config:
    dataset = dict(
        type="CocoDataset",
        data_root=str(folder),
        ann_file="val.json",
        data_prefix=dict(img=""),
        metainfo=dict(classes=NAMES),
        test_mode=True,
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(192, 128), keep_ratio=True),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(
                type="PackDetInputs",
                meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
            ),
        ],
    )
    return Config(
        dict(
            default_scope="mmdet",
            val_dataloader=dict(batch_size=2, dataset=dataset),
            val_evaluator=dict(type="CocoMetric", ann_file=str(folder / "val.json"), metric="bbox"),
        )
    )


FIXED = dict(size=(128, 192), batch=1)


@pytest.mark.parametrize(
    "name, options",
    [
        ("atss", {}),
        ("faster", {}),
        ("atss", dict(batch=3)),
        ("atss", FIXED),
        ("faster", dict(FIXED, preprocess=True)),
        ("rtmdet", FIXED),
        ("dino", FIXED),
    ],
)
def test_map_is_that_of_pytorch(name: str, options: dict, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for number, (width, height) in enumerate(SIZES):
        small = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(small).resize((width, height)).save(tmp_path / f"{number}.png")
    write_data(tmp_path, [(0, [0, 0, 9, 9], 0)])
    cfg = config(tmp_path)
    model = detector(name)
    # What PyTorch finds, every other one and shifted by some pixels, is what there is to be found.
    boxes = []
    validation = Validation(cfg, options.get("size"), options.get("batch"))
    for data in validation.loader:
        for sample in validation.predict(model, data):
            found = sample.pred_instances
            sides = found.bboxes[:, 2:] - found.bboxes[:, :2]
            found = found[sides.amin(1) > 8][:8:2].numpy()
            shifted = found.bboxes + generator.uniform(-1, 1, found.bboxes.shape)
            rows = zip(shifted.tolist(), found.labels.tolist())
            boxes += [(sample.img_id, box, label) for box, label in rows]
    write_data(tmp_path, boxes)

    validation = Validation(cfg, options.get("size"), options.get("batch"))
    path = tmp_path / "model.onnx"
    metadata = export_onnx(model, path, pipeline=pipeline(cfg), **options)
    session, exported = (
        OnnxSession(path),
        OnnxDetector(model, options.get("preprocess", False), metadata["pad"]),
    )
    theirs_fed, ours_fed = [], []
    model.register_forward_pre_hook(
        lambda _, __, given: theirs_fed.append(given["inputs"]), with_kwargs=True
    )

    def run(images: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
        inputs = torch.from_numpy(images)
        extent = exported.extent(inputs, torch.from_numpy(sizes))
        ours_fed.append(exported.normalised(inputs, extent))
        return session(images, sizes)

    theirs, ours = validation.metrics(model, run, metadata)
    for each, of_file in zip(theirs_fed, ours_fed):
        torch.testing.assert_close(of_file[: len(each)], each)
    assert 0.05 < theirs["coco/bbox_mAP"] < 0.99
    assert abs(theirs["coco/bbox_mAP"] - ours["coco/bbox_mAP"]) <= MAP_TOLERANCE
