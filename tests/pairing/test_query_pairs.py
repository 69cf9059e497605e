"""Pairs of detectors with queries: what they share, what is fitted, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from small import build
from small_cls import detection_batch, give_random_centers
from small_query import CONFIGS, config
from torch import nn
from zoo import FASTER, save_teacher

from kd_det.pairing import PairingError
from kd_det.pairing.compose import pair, read_pair
from kd_det.pairing.offers import describe_fitting, find_offers, why_not

pytestmark = pytest.mark.usefixtures("offline")


def write(name: str, folder: Path, **options: Any) -> str:
    """The config of a shrunk detector, with its own schedule and data."""
    model = config(name, **options).to_dict()
    path = folder / f"{name}{len(list(folder.iterdir()))}.py"
    path.write_text(
        f"_base_ = {f'mmdet::{CONFIGS[name]}'!r}\nmodel = {dict(model, _delete_=True)!r}\n"
    )
    return str(path)


# Student, teacher's options, method, and what must have been decided.
PAIRS = {
    "dino": ("dino", {}, "kd_nd", "same queries: the teacher's 12 and 300 that are drawn"),
    "detr": ("detr", dict(width=64), "robust_nd_kd", "queries: QueryConnector 64 -> 32"),
    "deformable": ("deformable", dict(width=64), "pkd_nd", "EmbeddingConnector 32 -> 64"),
    "dab": ("dab", dict(width=64), "kd", "both decoders"),
    "deformable_memory": (
        "deformable",
        dict(width=64),
        "robust_memory",
        "memory: PyramidConnector 32 -> 64",
    ),
    "detr_memory": ("detr", {}, "robust_memory", "levels of strides 32 are compared"),
    "conditional": ("conditional", dict(layers=3), "review_nd_kd", "ReviewFusion"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_trains_a_step(name, tmp_path, digits):
    learner, options, method, decided = PAIRS[name]
    sides = write(learner, tmp_path), write(learner, tmp_path, **options)
    made = pair(*sides, method, data=str(digits), epochs=1)
    assert decided in made.describe()
    path = tmp_path / "config" / "distill.py"
    made.write(path)
    cfg = Config.fromfile(path)
    assert cfg.to_dict() == made.cfg.to_dict()
    losses = cfg.model.distiller.distill_losses
    soft = {loss.get("softmax", False) for key, loss in losses.items() if "kd" in key}
    assert soft <= {name == "detr"}
    cfg.model.teacher_ckpt = save_teacher(cfg, tmp_path / "teacher.pth")
    model = build(cfg.model)
    give_random_centers(model)
    model.train()
    start = [p.detach().clone() for p in model.distiller.connectors.parameters()]
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-4))
    found = model.train_step(detection_batch(96, 1), wrapper)
    assert all(torch.isfinite(value).all() for value in found.values())
    assert {key.split(".")[-1] for key in found if key.startswith("distill.")} == losses.keys()
    joined = model.distiller.connectors["queries"] if "64 -> 32" in decided else nn.Module()
    for before, (_, after) in zip(start, joined.named_parameters()):
        assert not torch.equal(before, after)


def test_methods_that_fit_are_listed(tmp_path):
    dino = write("dino", tmp_path)
    text = describe_fitting(*read_pair(dino, dino))
    fitting, _, others = text.partition("not by ")
    for method in ("robust", "kd", "kd_nd", "robust_nd_kd", "pkd_nd", "cwd_nd_kd", "robust_memory"):
        assert f"\n{method} " in fitting
    for method in ("dkd", "dist_nd", "crosskd", "ld"):
        assert method in others and f"\n{method} " not in fitting


@pytest.mark.parametrize(
    ("student", "teacher", "reason"),
    [
        ("detr", "conditional", "the student DETR .* take queries of different kinds"),
        ("deformable", "deformable_two_stage", "the teacher DeformableDETR.* alone starts its"),
        ("detr", FASTER, "no queries of a decoder in the teacher FasterRCNN"),
        (
            "mmdet::ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py",
            "dino",
            "whose decoder takes them as DETR, .*; found a DDQDETR",
        ),
    ],
)
def test_queries_of_another_kind_are_not_shared(student, teacher, reason, tmp_path):
    names = [x if "::" in x else write(x, tmp_path) for x in (student, teacher)]
    offers = find_offers(*read_pair(*names))
    assert re.search(reason, offers["shared_queries"])
    assert re.search(reason, why_not("kd", offers))


def test_encoders_of_other_levels_have_no_memory_in_common(tmp_path):
    names = [write(x, tmp_path) for x in ("detr", "dino")]
    assert why_not("robust_memory", find_offers(*read_pair(*names))) == (
        "the encoder of the student DETR reads maps of strides [32], that of the teacher DINO "
        "[8, 16, 32, 64]"
    )
    offers = find_offers(*read_pair(names[0], FASTER))
    assert why_not("robust_memory", offers) == "no encoder in the teacher FasterRCNN"


def test_a_pair_that_shares_none_is_refused_with_what_fits(tmp_path, digits):
    with pytest.raises(PairingError, match=r"by the method kd_nd: .*different kinds; take one of"):
        names = [write(x, tmp_path) for x in ("detr", "conditional")]
        pair(*names, "kd_nd", data=str(digits))


def test_scores_that_are_not_alike(tmp_path):
    soft = dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0)
    other = config("conditional")
    other.bbox_head.loss_cls = soft
    names = [write("conditional", tmp_path), str(tmp_path / "soft.py")]
    model = dict(other.to_dict(), _delete_=True)
    base = f"mmdet::{CONFIGS['conditional']}"
    Path(names[1]).write_text(f"_base_ = {base!r}\nmodel = {model!r}\n")
    offers = find_offers(*read_pair(*names))
    assert "are not alike: one is a softmax with background" in offers["shared_queries"]
