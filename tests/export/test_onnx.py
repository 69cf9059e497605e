"""An ONNX file detects what its detector does, in any size and number of images."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from PIL import Image
from small import ROOT, build
from small_onnx import detector, model_config

from kd_det.errors import UnsupportedTypeError

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from kd_det.export.onnx.check import Comparison, _match, compare
from kd_det.export.onnx.dense import check_head
from kd_det.export.onnx.detector import OnnxDetector
from kd_det.export.onnx.file import export_onnx, preparation
from kd_det.export.onnx.runtime import OnnxRunError, OnnxSession
from kd_det.export.onnx.validation import on_images, prepare

SHAPES = ((1, 64, 96), (3, 128, 64))
PIPELINE = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(128, 96), keep_ratio=True),
]


def images(batch: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((batch, 3, height, width), dtype=np.float32)


def test_padding_is_exact_where_images_are_normalised_inside() -> None:
    """Whole numbers miss the mean colour by up to half a step."""
    model = detector("retina")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    bgr = [torch.from_numpy(pixels[0, :40, :, ::-1].transpose(2, 0, 1).copy()),
           torch.from_numpy(pixels[1, :, :50, ::-1].transpose(2, 0, 1).copy())]  # fmt: skip
    expected = model.data_preprocessor(dict(inputs=bgr, data_samples=None))["inputs"]
    inside = OnnxDetector(model, True, preparation(model, PIPELINE, None, True)["pad"])
    inputs = torch.from_numpy(pixels)
    extent = inside.extent(inputs, torch.tensor([[40, 96], [64, 50]]))
    torch.testing.assert_close(inside.normalised(inputs, extent), expected)


@pytest.mark.parametrize(
    "name", ["faster", "cascade", "retina", "fcos", "atss", "gfl", "rtmdet", "yolox"]
)
def test_detections_of_any_size_and_batch(name: str, tmp_path: Path) -> None:
    model = detector(name)
    export_onnx(model, tmp_path / "model.onnx")
    session = OnnxSession(tmp_path / "model.onnx")
    for shape in SHAPES:
        result = compare(OnnxDetector(model), session, images(*shape))
        assert result.detections >= 10 * shape[0] and result.fits, result


@pytest.mark.parametrize("name", ["dino", "detr"])
def test_queries_of_a_fixed_input_with_and_without_padding(name: str, tmp_path: Path) -> None:
    """The deepest of DINO's maps is a 64th of the image, and must have two rows and columns."""
    model = detector(name)
    export_onnx(model, tmp_path / "model.onnx", size=(128, 192), batch=2)
    session = OnnxSession(tmp_path / "model.onnx")
    for sizes in (None, np.array([[128, 100], [70, 192]])):
        result = compare(OnnxDetector(model), session, images(2, 128, 192), sizes)
        assert result.detections == 40 and result.fits, result


def test_what_a_runtime_refuses_is_an_error_for_users(tmp_path: Path) -> None:
    export_onnx(detector("retina"), tmp_path / "model.onnx", size=(64, 96), batch=1)
    with pytest.raises(OnnxRunError, match=r"model\.onnx: .*images"):
        OnnxSession(tmp_path / "model.onnx")(images(1, 64, 64))


def test_a_fixed_input_with_its_normalisation(tmp_path: Path) -> None:
    """Pixels through the file's own arithmetic, against mmdet's data preprocessor."""
    model = detector("retina")
    preprocessor = model.data_preprocessor
    assert preprocessor._channel_conversion  # RGB, of images in BGR
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
    bgr = torch.from_numpy(pixels[0, ..., ::-1].transpose(2, 0, 1).copy())
    expected = preprocessor(dict(inputs=[bgr], data_samples=None))["inputs"]
    inside = OnnxDetector(model, preprocess=True)
    sizes = torch.tensor([[64, 96]])
    inputs = torch.from_numpy(pixels)
    extent = inside.extent(inputs, sizes)
    torch.testing.assert_close(inside.normalised(inputs, extent), expected)

    metadata = export_onnx(
        model, tmp_path / "model.onnx", size=(64, 96), batch=1, preprocess=True, pipeline=PIPELINE
    )
    session = OnnxSession(tmp_path / "model.onnx")
    assert session.metadata == metadata and metadata["normalised_inside"]
    assert session.session.get_inputs()[0].shape == [1, 64, 96, 3]
    result = compare(inside, session, pixels)
    assert result.detections and result.fits, result

    outside = dict(metadata, normalised_inside=False)
    np.testing.assert_allclose(prepare([bgr], outside, 1), expected.numpy(), atol=1e-5)


def test_padding_is_zero_after_normalising() -> None:
    model = detector("retina")
    metadata = OnnxDetector(model) and dict(
        channels="RGB", mean=[1.0, 2, 3], std=[2.0, 2, 2], pad=[1.0, 2, 3], size=None, divisor=32,
        normalised_inside=False,
    )  # fmt: skip
    image = torch.full((3, 20, 40), 7, dtype=torch.uint8)
    (prepared,) = prepare([image], metadata, 1)
    assert prepared.shape == (3, 32, 64)
    assert (prepared[:, 20:] == 0).all() and (prepared[:, :, 40:] == 0).all()
    assert prepared[:, 0, 0].tolist() == [3.0, 2.5, 2.0]


def test_boxes_go_back_to_the_image_on_disk() -> None:
    from mmdet.structures import DetDataSample

    sample = DetDataSample(metainfo=dict(img_shape=(40, 80), scale_factor=(2.0, 4.0)))
    found = dict(
        boxes=np.array([[[4, 8, 100, 100], [0, 0, 0, 0]]], np.float32),
        scores=np.array([[0.5, 0]], np.float32),
        labels=np.array([[3, -1]]),
    )
    (result,) = on_images(found, [sample])
    assert isinstance(result.pred_instances, InstanceData)
    assert result.pred_instances.bboxes.tolist() == [[2, 2, 40, 10]]
    assert result.pred_instances.labels.tolist() == [3]


def test_a_comparison_sees_each_kind_of_difference() -> None:
    boxes, scores, labels = np.zeros((2, 4)), np.array([0.9, 0.5]), np.array([1, 2])
    same = Comparison()
    _match(same, (boxes, scores, labels), (boxes[::-1], scores[::-1], labels[::-1]))
    assert same.fits and same.unmatched == 0
    for other in (
        (boxes + 0.2, scores, labels),
        (boxes, scores + 0.01, labels),
        (boxes, scores, labels + 1),
        (boxes[:1], scores[:1], labels[:1]),
    ):
        result = Comparison()
        _match(result, (boxes, scores, labels), other)
        assert not result.fits


def test_what_has_no_counterpart_is_named() -> None:
    from mmdet.models.dense_heads import SSDHead

    with pytest.raises(UnsupportedTypeError, match="TOODHead cannot be exported"):
        OnnxDetector(detector("tood"))
    with pytest.raises(UnsupportedTypeError, match=r"DDQDETR cannot .* NMS by which it chooses"):
        OnnxDetector(build(model_config("ddq")))
    anchors = dict(
        type="SSDAnchorGenerator",
        scale_major=False,
        input_size=64,
        min_sizes=[10, 20],
        max_sizes=[20, 30],
        strides=[8, 16],
        ratios=[[2], [2]],
    )
    with pytest.raises(UnsupportedTypeError, match=r"SSDHead cannot .* found none"):
        check_head(SSDHead(num_classes=2, in_channels=(8, 8), anchor_generator=anchors))
    model = detector("retina")
    model.bbox_head.test_cfg.nms = dict(type="soft_nms", iou_threshold=0.5)
    with pytest.raises(UnsupportedTypeError, match="the soft_nms of RetinaHead"):
        OnnxDetector(model)


def test_an_operator_without_counterpart_is_named(tmp_path: Path) -> None:
    model = detector("retina")
    model.neck.register_forward_hook(lambda _, __, maps: [torch.special.i0(x) for x in maps])
    with pytest.raises(UnsupportedTypeError, match=r"operator .aten::i0. to ONNX"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


SCRIPT = re.search(
    r"^    ```python\n(.*?)^    ```", (ROOT / "docs/deploy.md").read_text(), re.M | re.S
)


@pytest.mark.parametrize("options", [{}, dict(size=(96, 96), batch=1, preprocess=True)])
def test_the_script_of_the_docs_needs_no_torch(options: dict, tmp_path: Path) -> None:
    """What it prints is what the file finds in the image as MMDetection's pipeline resizes it."""
    text = textwrap.dedent(SCRIPT[1])
    assert len(text.splitlines()) <= 30
    (tmp_path / "detect.py").write_text(text)
    model = detector("atss")
    path = tmp_path / "student.onnx"
    metadata = export_onnx(model, path, classes=list("abcdefghij"), pipeline=PIPELINE, **options)
    generator = np.random.default_rng(0)
    picture = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    picture = picture.resize((200, 150), Image.Resampling.BICUBIC)
    picture.save(tmp_path / "photo.png")

    (tmp_path / "alone.py").write_text(
        "import runpy, sys\n"
        "for name in ('torch', 'torchvision', 'mmdet', 'mmcv', 'mmengine', 'cv2', 'kd_det'):\n"
        "    sys.modules[name] = None\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    command = [sys.executable, "alone.py", "detect.py", "student.onnx", "photo.png", "0"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    printed = [line.split() for line in ran.stdout.splitlines()]

    width, height = (96, 72) if options else (128, 96)
    resized = mmcv.imresize(np.asarray(picture)[..., ::-1], (width, height))
    pixels = torch.from_numpy(resized.transpose(2, 0, 1).copy())
    found = OnnxSession(path)(prepare([pixels], metadata, 1), np.array([[height, width]]))
    count = int((found["scores"][0] > 0).sum())
    assert count >= 10 and abs(len(printed) - count) <= 1
    label, score, *box = printed[0]
    assert label == "abcdefghij"[found["labels"][0, 0]]
    # Resized pixels differ by one at most.
    assert abs(float(score) - found["scores"][0, 0]) < 0.05
    limits = np.array([width, height, width, height])
    expected = np.clip(found["boxes"][0, 0], 0, limits) * 200 / width
    assert np.abs(np.array(box, float) - expected).max() < 3
