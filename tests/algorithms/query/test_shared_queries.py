"""Both decoders answer the same queries: against a student that is given the teacher's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import InstanceData
from small_heads import fresh
from small_query import (
    CLASSES,
    CONFIGS,
    FIXED_WIDTH,
    QUERIES,
    WIDTH,
    batch,
    detector,
    pair,
    parts,
)
from torch import Tensor, nn

from kd_det import TeacherDistill
from kd_det.algorithms import WiringError
from kd_det.algorithms.embeddings import (
    describe_embeddings,
    embedding_sources,
    rules,
    teacher_embeddings,
)
from kd_det.algorithms.query import Outputs, draw
from kd_det.centers import ClassCenters
from kd_det.losses import query_box_loss, query_kd_loss

KINDS = list(CONFIGS)
INPUTS = ("query", "query_pos", "reference_points")


def make(name: str, teacher_seed: int = 1, teacher: dict | None = None, **more: Any):
    more.setdefault("softmax", name == "detr")
    sides = detector(name, 0), detector(name, teacher_seed, **(teacher or {}))
    return pair(*sides, parts(**more))


def centers() -> Tensor:
    return torch.rand(CLASSES, 256, generator=torch.Generator().manual_seed(3))


def make_nd(name: str, random: int = 0) -> TeacherDistill:
    """The ND loss on matched queries; with ``random``, KD on queries that are drawn too."""
    cfg = parts(random=random, softmax=name == "detr") if random else {}
    recorder = dict(queries=dict(type="kd_det.SharedQueries", match=True))
    record = dict(recorder="queries")
    width = WIDTH if name not in FIXED_WIDTH else 256
    nd = dict(
        student_recorders=recorder,
        teacher_recorders=recorder,
        distill_losses=dict(
            loss_nd=dict(type="kd_det.NDLoss", num_classes=CLASSES, embed_dim=width)
        ),
        loss_forward_mappings=dict(
            loss_nd=dict(
                s_emb=dict(record, from_student=True, data_idx=3),
                t_emb=dict(record, from_student=False, data_idx=3),
                labels=dict(record, from_student=False, data_idx=4),
            )
        ),
    )
    cfg = {key: {**cfg.get(key, {}), **nd[key]} for key in nd}
    model = pair(detector(name, 0), detector(name, 1), cfg)
    gathered = ClassCenters(CLASSES, width)
    gathered.update(centers()[:, :width], torch.arange(CLASSES))
    model.distiller.distill_losses["loss_nd"].set_centers(gathered)
    return model


def quiet(model: TeacherDistill) -> TeacherDistill:
    """Without dropout and statistics of batches; the student computes losses, as in training."""
    model.eval()
    model.student.training = True
    return model


def step(
    model: TeacherDistill, inputs: Tensor | None = None
) -> tuple[dict[str, Tensor], dict[str, dict[str, Outputs]]]:
    """The losses of distillation, and what was recorded on both sides."""
    records: dict[str, dict[str, Outputs]] = {}
    drop = model.drop_records

    def keep() -> None:
        for side in ("student", "teacher"):
            recorders = getattr(model.distiller, f"{side}_recorders").recorders
            records[side] = {name: x.data_buffer[0] for name, x in recorders.items()}
        drop()

    model.drop_records = keep
    images, samples = batch()
    losses = model(images if inputs is None else inputs, fresh(samples), mode="loss")
    model.drop_records = drop
    return {k[8:]: v for k, v in losses.items() if k.startswith("distill.")}, records


def answers(student: Any, teacher: Any) -> tuple[Tensor, Tensor]:
    """Logits and boxes of a student in whose place the teacher prepares the decoder's queries."""
    inputs, samples = batch()
    with torch.no_grad():
        memory = teacher.forward_encoder(
            **teacher.pre_transformer(teacher.extract_feat(inputs), samples)[0]
        )
        queries, _ = teacher.pre_decoder(**memory)
        asked = copy.deepcopy(student).eval()
        original = asked.pre_decoder

        def pre_decoder(*args: Any, **kwargs: Any) -> tuple[dict, dict]:
            own, head = original(*args, **kwargs)
            return {**own, **{k: v for k, v in queries.items() if k in INPUTS}}, head

        asked.pre_decoder = pre_decoder
        logits, boxes = asked.bbox_head(
            **asked.forward_transformer(asked.extract_feat(inputs), samples)
        )
    return logits[-1], boxes[-1]


@pytest.mark.parametrize("name", KINDS)
def test_the_student_answers_the_teachers_queries(name):
    # Other numbers of queries and layers.
    model = quiet(make(name, teacher=dict(num_queries=9, layers=3)))
    losses, records = step(model)
    logits, boxes = answers(model.student, model.teacher)
    assert logits.shape[1] == 9
    torch.testing.assert_close(records["student"]["own"].logits, logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(records["student"]["own"].boxes, boxes, rtol=1e-4, atol=1e-4)
    t_logits, t_boxes = answers(model.teacher, model.teacher)
    kd = query_kd_loss(logits, t_logits, name == "detr")
    box = query_box_loss(boxes, t_boxes)
    scores = t_logits.softmax(-1)[..., :-1] if name == "detr" else t_logits.sigmoid()
    weights = scores.amax(-1)
    for loss, rows in (("kd", kd), ("box", box)):
        expected = ((weights * rows).sum(1) / weights.sum(1).clamp(min=1)).mean()
        torch.testing.assert_close(losses[f"loss_{loss}_own"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_a_student_that_is_its_teacher_costs_nothing(name):
    losses, records = step(quiet(make(name, teacher_seed=0, random=7)))
    assert losses.keys() == {f"loss_{x}" for x in ("kd_own", "box_own", "kd_drawn", "box_drawn")}
    for loss in losses.values():
        assert loss.item() == pytest.approx(0, abs=2e-5)
    for side in records.values():
        assert side["own"].logits.shape[1] == QUERIES
        assert side["drawn"].logits.shape[1] == 7
    own, drawn = (records["teacher"][x].embeddings for x in ("own", "drawn"))
    assert not torch.allclose(own[:, :7], drawn)


@pytest.mark.parametrize("name", KINDS)
def test_the_gradient_reaches_the_student_but_not_its_queries(name):
    model = make(name, random=7)
    losses, _ = step(model)
    sum(losses.values()).backward()
    parts_of_student = {
        part: sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)
        for part, module in model.student.named_children()
    }
    for part in ("backbone", "encoder", "decoder", "bbox_head"):
        assert parts_of_student[part] > 0
    for part in ("query_embedding", "reference_points_fc", "pos_trans_fc", "dn_query_generator"):
        assert parts_of_student.get(part, 0) == 0
    assert all(p.grad is None for p in model.teacher.parameters())


def train(model: nn.Module, steps: int = 2) -> list[Tensor]:
    """Parameters after steps of a training, from one seed."""
    torch.manual_seed(5)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    inputs, samples = batch()
    for _ in range(steps):
        losses = model(inputs, fresh(samples), mode="loss")
        total, _ = model.parse_losses(losses)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return [p.detach() for p in getattr(model, "student", model).parameters()]


@pytest.mark.parametrize("name", ["detr", "deformable_refine", "dino"])
def test_with_weights_of_zero_the_student_trains_as_alone(name):
    """Dropout and denoising queries take the same random numbers."""
    alone = train(detector(name, 0).train())
    distilled = train(make(name, random=7, weight=0.0))
    assert all(map(torch.equal, alone, distilled))
    assert not all(map(torch.equal, alone, train(make(name, random=7))))


@pytest.mark.parametrize("name", ["detr", "deformable", "dab"])
def test_other_widths_are_joined(name):
    embeddings = dict(detr=["query_pos"], deformable=["query", "query_pos"], dab=[])[name]
    cfg = parts(random=7, softmax=name == "detr", connector="queries" if embeddings else None)
    if embeddings:
        cfg["connectors"] = dict(
            queries=dict(
                type="kd_det.QueryConnector",
                in_features=2 * WIDTH,
                out_features=WIDTH,
                embeddings=embeddings,
            )
        )
    model = pair(detector(name, 0), detector(name, 1, width=2 * WIDTH), cfg)
    losses, records = step(model)
    assert records["student"]["own"].embeddings.shape[-1] == WIDTH
    assert records["teacher"]["own"].embeddings.shape[-1] == 2 * WIDTH
    sum(losses.values()).backward()
    grads = [p.grad for p in model.distiller.connectors.parameters()]
    assert len(grads) == 2 * len(embeddings)
    assert all(grad.abs().sum() > 0 for grad in grads)


def test_widths_that_differ_without_a_connector_are_named():
    with pytest.raises(WiringError, match=r"DETR takes .*'query_pos': 32.*found .*64.*Connector"):
        make("detr", teacher=dict(width=2 * WIDTH))


@pytest.mark.parametrize(("name", "teacher"), [("detr", "dab"), ("deformable", "dino")])
def test_queries_of_another_kind_are_refused(name, teacher):
    with pytest.raises(WiringError, match="takes queries of"):
        pair(detector(name), detector(teacher), parts())


def test_both_sides_share_queries_by_name():
    cfg = parts(random=7)
    cfg["teacher_recorders"]["drawn"] = dict(type="kd_det.SharedQueries", random=8)
    with pytest.raises(WiringError, match=r"same names .*'drawn': \(7.*'drawn': \(8"):
        pair(detector("dab"), detector("dab"), cfg)
    with pytest.raises(WiringError, match=r"'own' names connector 'queries', but there are \[\]"):
        make("dab", connector="queries")
    with pytest.raises(ValueError, match=r"random, a number of queries >= 0, .*got random=-1"):
        make("dab", random=-1)


def test_a_detector_without_such_queries_is_refused():
    from small_dense import detector as dense

    with pytest.raises(TypeError, match=r"as DETR, ConditionalDETR, .*found a RetinaNet"):
        pair(dense("retinanet"), dense("retinanet"), parts())


@pytest.mark.parametrize("name", ["conditional", "dino"])
def test_mixed_precision(name):
    expected, _ = step(make(name, random=7))
    model = make(name, random=7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses, _ = step(model)
    sum(losses.values()).backward()
    for key, loss in losses.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected[key].item(), rel=0.2)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_nothing_is_kept_after_a_step():
    model = make("detr", random=7)
    step(model)
    for side in (model.distiller.student_recorders, model.distiller.teacher_recorders):
        for recorder in side.recorders.values():
            assert recorder.call is None and not recorder.data_buffer
    # As an average of weights is made.
    assert copy.deepcopy(model).teacher is model.teacher


def test_queries_are_drawn_from_the_range_of_the_teachers():
    queries = dict(query=torch.tensor([[[0.0, 5], [2, 5]], [[1, 5], [1, 5]]]))
    state = torch.get_rng_state()
    found = draw(queries, 500, 1, 2)["query"]
    assert torch.equal(torch.get_rng_state(), state)
    assert found.shape == (2, 500, 2)
    first = found[..., 0]
    assert first.min() >= 0 and first.max() <= 2 and abs(float(first.mean()) - 1) < 0.1
    assert (found[..., 1] == 5).all()
    assert torch.equal(found, draw(queries, 500, 1, 2)["query"])
    assert not torch.equal(found, draw(queries, 500, 1, 3)["query"])


@pytest.mark.parametrize("name", ["detr", "deformable", "dino"])
def test_nd_on_queries_that_the_teacher_matches_to_objects(name):
    model = quiet(make_nd(name))
    losses, records = step(model)
    student, teacher = records["student"]["queries"], records["teacher"]["queries"]
    # Two objects in the first image, one in the second; by hand, with mmdet's own assigner.
    _, samples = batch()
    means = centers()[:, : teacher.embeddings.shape[-1]]
    costs = []
    for n, sample in enumerate(samples):
        own = InstanceData(
            scores=teacher.logits[n],
            bboxes=bbox_cxcywh_to_xyxy(teacher.boxes[n]) * 64,  # pixels a side
        )
        head = model.teacher.bbox_head
        found = head.assigner.assign(own, sample.gt_instances, img_meta=sample.metainfo).gt_inds
        for query in found.nonzero().flatten().tolist():
            label = int(sample.gt_instances.labels[found[query] - 1])
            s, t = (side.embeddings[n, query] for side in (student, teacher))
            e = means[label] / means[label].norm()
            costs.append(1 - s @ e / max(s.norm(), t.norm()))
    assert len(costs) == 3
    torch.testing.assert_close(losses["loss_nd"], torch.stack(costs).mean())


def test_images_without_objects_have_no_matched_queries():
    model = make_nd("detr")
    inputs, samples = batch()
    for sample in samples:
        sample.gt_instances = sample.gt_instances[:0]
    losses = model(inputs, samples, mode="loss")
    assert losses["distill.loss_nd"] == 0
    losses["distill.loss_nd"].backward()
    assert next(model.student.decoder.parameters()).grad is not None


@pytest.mark.parametrize("name", ["conditional", "dino"])
def test_class_centers_are_means_over_the_teachers_matched_queries(name):
    model = make_nd(name, random=7)
    inputs, samples = batch()
    data = dict(inputs=inputs, data_samples=samples)
    found = teacher_embeddings(model, data)
    ((source, embeddings, labels),) = found
    assert source == "decoder"
    assert embedding_sources(model) == {"loss_nd": "decoder"}
    assert "the teacher's matched queries" in describe_embeddings(model, "gt")["decoder"]
    assert sorted(labels.tolist()) == [0, 1, 3]
    _, records = step(model, model.data_preprocessor(data)["inputs"])
    torch.testing.assert_close(records["teacher"]["queries"].matched, embeddings)
    assert torch.equal(records["student"]["queries"].labels, labels)
    assert rules(model.teacher, "gt") == [
        type(model.teacher.bbox_head).__name__, model.teacher.train_cfg, QUERIES,
    ]  # fmt: skip


def test_class_centers_need_matched_queries_and_a_teacher_that_matches():
    model = make_nd("detr")
    recorder = model.distiller.teacher_recorders.recorders["queries"]
    recorder.match = False
    inputs, samples = batch()
    data = dict(inputs=inputs, data_samples=samples)
    with pytest.raises(ValueError, match=r"expected t_emb of .*match=True, found one of decoder"):
        teacher_embeddings(model, data)
    recorder.match = True
    del model.teacher.bbox_head.assigner
    with pytest.raises(ValueError, match=r"the teacher has no train_cfg, so nothing says which"):
        teacher_embeddings(model, data)
