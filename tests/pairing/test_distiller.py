"""Recorders, connectors and losses of a method, fitted to detectors of other shapes."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
from zoo import C4, CASCADE, FASTER
from zoo import student as zoo_student

from kd_det.pairing import PairingError
from kd_det.pairing.detectors import Detector, Level, read_detector
from kd_det.pairing.distiller import common_levels, fit_distiller
from kd_det.pairing.methods import METHODS, find_forms
from kd_det.pairing.offers import choose_form
from kd_det.pairing.text import read_bases

pytestmark = pytest.mark.usefixtures("offline")


@cache
def detector(name: str, who: str) -> Detector:
    return read_detector(name, who, 3)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return read_detector(zoo_student("narrow", tmp_path_factory.mktemp("narrow")), "student", 3)


@cache
def _model(method: str) -> dict[str, Any]:
    return read_bases([find_forms(method)[0].path])["model"]


def fit(method: str, student: Detector, teacher: Detector) -> tuple[dict[str, Any], list[str]]:
    """The distiller's config and what was decided."""
    model = copy.deepcopy(_model(method))
    return model, fit_distiller(model, student, teacher)


def levels(*strides: int) -> list[Level]:
    return [Level(index, 8, stride) for index, stride in enumerate(strides)]


@pytest.mark.parametrize(
    ("student", "teacher", "pairs"),
    [
        ((4, 8, 16, 32, 64), (4, 8, 16, 32, 64), [(i, i) for i in range(5)]),
        ((4, 8, 16, 32), (8, 16, 32, 64, 128), [(1, 0), (2, 1), (3, 2)]),
        ((4, 8, 16, 32, 64), (16,), [(2, 0)]),
        ((4,), (16,), []),
    ],
)
def test_levels_of_one_stride_are_common(student, teacher, pairs):
    found = common_levels(levels(*student), levels(*teacher))
    assert [(a.index, b.index) for a, b in found] == pairs


# Those for dense heads and queries alone are in test_families.py and test_query_pairs.py.
@pytest.mark.parametrize(
    "method", [x for x in METHODS if find_forms(x)[0].path.parent.name == "methods"]
)
def test_equal_detectors_keep_the_method_as_it_is(method):
    student, teacher = detector(FASTER, "student"), detector(FASTER, "teacher")
    model, _ = fit(method, student, teacher)
    expected = copy.deepcopy(_model(method))
    for loss in expected["distiller"]["distill_losses"].values():
        if "num_classes" in loss:
            loss["num_classes"] = 3
    assert model == expected


def test_only_common_levels_are_recorded_and_compared(narrow):
    model, decisions = fit("cwd", narrow, detector(FASTER, "teacher"))
    distiller = model["distiller"]
    whole = dict(type="ModuleOutputs", source="neck")
    assert distiller["student_recorders"]["fpn"] == whole
    picked = [dict(whole, data_idx=level) for level in range(4)]
    assert distiller["teacher_recorders"]["fpn"] == dict(type="kd_det.Pyramid", levels=picked)
    names = [f"loss_cwd_fpn{level}" for level in range(4)]
    assert list(distiller["distill_losses"]) == list(distiller["loss_forward_mappings"]) == names
    assert distiller["connectors"]["channels3"] == dict(
        type="kd_det.PyramidConnector", in_channels=[128], out_channels=[256]
    )
    assert "PyramidConnector 128 -> 256" in decisions


def test_levels_that_the_method_does_not_read_are_not_said_to_be_compared(narrow):
    _, decisions = fit("pkd", detector(FASTER, "student"), detector(FASTER, "teacher"))
    assert decisions[0] == (
        "levels of strides 4, 8, 16, 32 are compared; the method leaves those of 64 out"
    )
    _, decisions = fit("pkd", narrow, detector(FASTER, "teacher"))
    assert decisions[0] == (
        "levels of strides 4, 8, 16, 32 are compared; the teacher's of 64 have no partner"
    )


def test_channels_and_embeddings_are_connected(narrow):
    model, decisions = fit("review_nd_kd", narrow, detector(FASTER, "teacher"))
    distiller = model["distiller"]
    fusion = distiller["connectors"]["review"]
    assert fusion["in_channels"] == [128] * 4 and fusion["out_channels"] == [256] * 4
    assert distiller["connectors"]["embedding"] == dict(
        type="kd_det.EmbeddingConnector", in_features=256, out_features=1024
    )
    mappings = distiller["loss_forward_mappings"]
    assert mappings["loss_nd"]["s_emb"]["connector"] == "embedding"
    assert "connector" not in mappings["loss_nd"]["t_emb"]
    assert distiller["distill_losses"]["loss_nd"]["embed_dim"] == 1024
    assert distiller["distill_losses"]["loss_nd"]["num_classes"] == 3
    assert {"ReviewFusion 128 -> 256", "EmbeddingConnector 256 -> 1024"} <= set(decisions)


def test_a_cascade_teaches_one_head_by_its_last_stage():
    model, decisions = fit(
        "robust_nd_kd", detector(FASTER, "student"), detector(CASCADE, "teacher")
    )
    recorders = model["distiller"]["teacher_recorders"]
    assert model["teacher_stage"] == "last"
    assert recorders["logits"]["source"] == "roi_head.bbox_head.2.fc_cls"
    assert set(model["distiller"]["distill_losses"]) == {"loss_cwd", "loss_kd", "loss_nd"}
    # What cannot be copied is left out and told.
    assert model["init_student_from_teacher"] == ["rpn_head"]
    assert "roi_head: nothing of the teacher's fits the student" in decisions


def test_cascades_teach_stage_by_stage():
    model, _ = fit("kd_nd", detector(CASCADE, "student"), detector(CASCADE, "teacher"))
    distiller = model["distiller"]
    assert model["teacher_stage"] == "same"
    weights = {name: loss["loss_weight"] for name, loss in distiller["distill_losses"].items()}
    assert weights == {
        f"loss_{x}{i}": w for x in ("kd", "nd") for i, w in enumerate((1, 0.5, 0.25))
    }
    for side in ("student", "teacher"):
        recorders = distiller[f"{side}_recorders"]
        assert "logits" not in recorders
        assert recorders["embedding1"]["source"] == "roi_head.bbox_head.1.fc_cls"
    mapping = distiller["loss_forward_mappings"]["loss_nd1"]
    assert [record["recorder"] for record in mapping.values()] == [
        "embedding1", "embedding1", "targets1"
    ]  # fmt: skip


def test_one_head_scores_each_stage_of_a_cascade():
    model, _ = fit("kd_nd", detector(CASCADE, "student"), detector(C4, "teacher"))
    distiller = model["distiller"]
    assert model.get("teacher_stage") is None
    preds = distiller["loss_forward_mappings"]["loss_kd2"]["preds_T"]
    assert preds == dict(recorder="logits", from_student=False, record_idx=2)
    # One connector for each stage, and none that nothing uses.
    assert set(distiller["connectors"]) == {"embedding0", "embedding1", "embedding2"}


def test_a_detector_without_neck_is_recorded_at_its_backbone():
    model, decisions = fit("robust", detector(FASTER, "student"), detector(C4, "teacher"))
    distiller = model["distiller"]
    assert distiller["teacher_recorders"]["fpn"]["source"] == "backbone"
    assert distiller["student_recorders"]["fpn"]["levels"] == [
        dict(type="ModuleOutputs", source="neck", data_idx=2)
    ]
    assert distiller["connectors"]["channels"]["out_channels"] == [1024]
    assert "rpn_head: nothing of the teacher's fits the student" in decisions


def test_no_stride_in_common_names_both():
    import dataclasses

    student = dataclasses.replace(detector(FASTER, "student"), levels=levels(6, 12))
    teacher = detector(FASTER, "teacher")
    with pytest.raises(PairingError) as caught:
        choose_form("robust", student, teacher)
    assert str(caught.value) == (
        f"{FASTER} cannot teach {FASTER} by the method robust: the student FasterRCNN "
        f"has maps of strides 6, 12 and the teacher FasterRCNN of 4, 8, 16, 32, 64, "
        "none in common; take one of kd, kd_nd, dkd, dkd_nd, dist, dist_nd"
    )
    fit("kd_nd", student, teacher)  # as one that does
