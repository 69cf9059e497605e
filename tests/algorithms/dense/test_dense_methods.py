"""Steps of each method for dense heads, against the formula on what both models compute."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from dense_parts import cross_parts, kd_parts, ld_parts, nd_parts, of
from small_dense import CLASSES, batch, detector, embeddings, layers, levels_of, pair
from small_heads import fresh, watch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_det import TeacherDistill
from kd_det.algorithms import PositivesRecorder
from kd_det.algorithms.dense import decode_boxes
from kd_det.algorithms.dry_run import dry_run
from kd_det.centers import ClassCenters
from kd_det.losses import overlap_loss

HEADS = ["retinanet", "gfl", "fcos", "fcos_normed", "atss", "rtmdet", "yolox"]


def centers(dim: int = 8) -> Tensor:
    return torch.rand(CLASSES, dim, generator=torch.Generator().manual_seed(3))


def make(name: str, parts: dict[str, Any], teacher_seed: int = 1, **width: Any) -> TeacherDistill:
    model = pair(detector(name, 0), detector(name, teacher_seed, **width), parts)
    for loss in model.distiller.distill_losses.values():
        if hasattr(loss, "set_centers"):
            gathered = ClassCenters(CLASSES, loss.embed_dim)
            gathered.update(centers(loss.embed_dim), torch.arange(CLASSES))
            loss.set_centers(gathered)
    return model


def step(model: TeacherDistill) -> SimpleNamespace:
    """A step's losses, what both heads put out, and the student's positives."""
    heads = {side: watch(getattr(model, side).bbox_head) for side in ("student", "teacher")}
    positives = PositivesRecorder("bbox_head")
    positives.initialize(model.student)
    inputs, samples = batch()
    with positives:
        losses = model(inputs, fresh(samples), mode="loss")
    outs = {side: calls[0].output for side, calls in heads.items()}
    return SimpleNamespace(
        losses={k[len("distill.") :]: v for k, v in losses.items() if k.startswith("distill")},
        positives=positives.get_record_data(data_idx=0),
        **outs,
    )


def bce(s: Tensor, t: Tensor) -> Tensor:
    """Sum of |p_t - p_s| BCE."""
    p = t.sigmoid()
    return (
        (p - s.sigmoid()).abs() * F.binary_cross_entropy_with_logits(s, p, reduction="none")
    ).sum()


@pytest.mark.parametrize("name", HEADS)
def test_kd_of_class_maps_and_boxes(name):
    model = make(name, kd_parts(name))
    found = step(model)
    count = sum(map(len, found.positives))
    assert count > 0
    kd, overlap = 0.0, 0.0
    boxes = {
        side: decode_boxes(getattr(model, side).bbox_head, getattr(found, side)[1])
        for side in ("student", "teacher")
    }
    for level in range(levels_of(name)):
        s, t = found.student[0][level], found.teacher[0][level]
        s_joint, t_joint = s, t
        if name == "yolox":
            s_joint, t_joint = (
                (x.sigmoid() * side[2][level].sigmoid()).logit()
                for x, side in ((s, found.student), (t, found.teacher))
            )
        kd = kd + bce(s_joint, t_joint)
        rows = [
            boxes[side][level].permute(0, 2, 3, 1).reshape(-1, 4) for side in ("student", "teacher")
        ]
        weight = (t.sigmoid() - s.sigmoid()).abs().permute(0, 2, 3, 1).reshape(len(rows[0]), -1)
        overlap = overlap + (weight.amax(dim=1) * overlap_loss(*rows)).sum()
    torch.testing.assert_close(found.losses["loss_kd"], kd / count)
    torch.testing.assert_close(found.losses["loss_boxes"], overlap / count, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("name", ["gfl", "fcos_normed", "rtmdet"])
def test_cross_head(name, depth):
    model = make(name, cross_parts(name, depth))
    # The student's maps at this depth of each branch, level by level.
    seen: dict[str, list[Tensor]] = dict(cls=[], box=[])
    head = model.student.bbox_head
    if depth == 0:
        for maps in seen.values():
            model.student.neck.register_forward_hook(lambda *x, to=maps: to.extend(x[2]))
    for branch, stack in (("cls", head.cls_convs), ("box", head.reg_convs)) if depth else ():
        per_level = name == "rtmdet"
        for layer in [x[depth - 1] for x in stack] if per_level else [stack[depth - 1]]:
            layer.register_forward_hook(lambda *x, to=seen[branch]: to.append(x[2]))
    found = step(model)
    # The teacher's head with its first layers replaced by these.
    teacher = model.teacher.bbox_head
    after = {branch: iter(maps) for branch, maps in seen.items()}
    handles = []
    for branch, stack in (("cls", teacher.cls_convs), ("box", teacher.reg_convs)):
        for convs_ in list(stack) if name == "rtmdet" else [stack]:
            if depth == 0:
                hook = convs_[0].register_forward_pre_hook(lambda *_, of=after[branch]: next(of))
            else:
                hook = convs_[depth - 1].register_forward_hook(
                    lambda *_, of=after[branch]: next(of)
                )
            handles.append(hook)
    crossed = teacher([x.detach() for x in seen["cls"]])
    for handle in handles:
        handle.remove()
    count = sum(map(len, found.positives))
    expected = sum(map(bce, crossed[0], found.teacher[0])) / count
    torch.testing.assert_close(found.losses["loss_cls"], expected)
    s_boxes, t_boxes = (decode_boxes(teacher, x[1]) for x in (crossed, found.teacher))
    means = []
    for n in range(2):
        rows = [torch.cat([x[n].flatten(1).T for x in side]) for side in (s_boxes, t_boxes)]
        weight = torch.cat([x[n].flatten(1).amax(0) for x in found.teacher[0]]).sigmoid()
        costs = overlap_loss(*rows, giou=True)
        means.append((weight * costs).sum() / weight.sum())
    torch.testing.assert_close(
        found.losses["loss_box"], torch.stack(means).mean(), rtol=1e-4, atol=1e-5
    )


def test_ld():
    model = make("gfl", ld_parts())
    record = model.distiller.student_recorders.recorders["positives"]
    region: list[Tensor] = []
    original = model.drop_records

    def keep() -> None:
        region.extend(record.get_record_data(data_idx=1) if record.data_buffer else [])
        original()

    model.drop_records = keep
    found = step(model)
    assert sum(map(len, region)) > 0

    def mean(places: list[Tensor]) -> Tensor:
        values = []
        for level, at in enumerate(places):
            for n, y, x, _ in at.tolist():
                s, t = (
                    side[1][level][n, :, y, x].view(4, -1) / 10
                    for side in (found.student, found.teacher)
                )
                p = t.softmax(dim=1)
                values.append(100 * (p * (t.log_softmax(1) - s.log_softmax(1))).sum() / 4)
        return torch.stack(values).mean()

    expected = mean(found.positives) + 0.5 * mean(region)
    torch.testing.assert_close(found.losses["loss_ld"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_nd(name):
    model = make(name, nd_parts(name))
    seen = {}
    for side in ("student", "teacher"):
        source = embeddings(name)["levels"]
        modules = dict(getattr(model, side).named_modules())
        seen[side] = maps = []
        for layer in dict.fromkeys(level["source"] for level in source):
            modules[layer].register_forward_pre_hook(lambda _, x, to=maps: to.append(x[0]))
    found = step(model)
    means, costs = centers(), []
    for level, at in enumerate(found.positives):
        for n, y, x, label in at.tolist():
            s, t = (seen[side][level][n, :, y, x] for side in ("student", "teacher"))
            e = means[label] / means[label].norm()
            costs.append(1 - s @ e / max(s.norm(), t.norm()))
    assert len(costs) >= 3
    torch.testing.assert_close(found.losses["loss_nd"], torch.stack(costs).mean())


@pytest.mark.parametrize("name", [*HEADS, "vfnet"])
def test_the_dry_run_checks_them(name):
    model = make(name, nd_parts(name))
    shapes, _ = dry_run(model)
    sides = (20, 10, 5) if levels_of(name) == 3 else (20, 10, 5, 3, 2)
    levels = " ".join(f"[1, 8, {x}, {x}]" for x in sides)
    assert shapes["loss_nd"]["s_emb"] == f"{levels_of(name)} x {levels}"
    assert shapes["loss_nd"]["labels"].startswith(f"{levels_of(name)} x [")


METHODS = {
    "kd": kd_parts,
    "crosskd": lambda name: cross_parts(name, 1),
    "ld": lambda name: ld_parts(),
    "nd": nd_parts,
}


def both(methods: list[str]) -> list[tuple[str, str]]:
    return [(m, name) for m in methods for name in HEADS if m != "ld" or name == "gfl"]


@pytest.mark.parametrize(("method", "name"), both(["kd", "crosskd", "ld", "nd"]))
def test_the_gradient_reaches_the_student_alone(method, name):
    model = make(name, METHODS[method](name))
    losses = step(model).losses
    for loss in losses.values():
        student = list(model.student.backbone.parameters())
        grads = torch.autograd.grad(loss, student, retain_graph=True, allow_unused=True)
        assert sum(float(g.abs().sum()) for g in grads if g is not None) > 0
    sum(losses.values()).backward()
    assert all(p.grad is None for p in model.teacher.parameters())


@pytest.mark.parametrize(("method", "name"), both(["kd", "crosskd", "ld"]))
def test_a_student_that_is_its_teacher_costs_nothing(method, name):
    model = make(name, METHODS[method](name), teacher_seed=0)
    model.eval()  # norms take the same statistics
    for loss in step(model).losses.values():
        assert loss.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_mixed_precision(method):
    model = make("gfl", METHODS[method]("gfl"))
    expected = step(model).losses
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = step(model).losses
    sum(found.values()).backward()
    for name, loss in found.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected[name].item(), rel=0.1)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_a_student_whose_embeddings_are_the_centers_costs_nothing():
    model = make("gfl", nd_parts("gfl"), teacher_seed=0).eval()
    found = step(model)
    assert found.losses["loss_nd"] > 0.1
    # A center for each class, in the direction of all embeddings.
    loss = model.distiller.distill_losses["loss_nd"]
    constant = torch.ones(CLASSES, 8)
    loss.centers.copy_(constant)
    last = model.student.bbox_head.cls_convs[-1]
    with torch.no_grad():
        for conv in (last, model.teacher.bbox_head.cls_convs[-1]):
            conv.gn.weight.zero_()
            conv.gn.bias.fill_(2.0)
    assert step(model).losses["loss_nd"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["gfl", "rtmdet"])
def test_connectors_join_heads_of_other_widths(name):
    model = make(name, cross_parts(name, 1, (8, 16)), width=16)
    losses = step(model).losses
    sum(losses.values()).backward()
    for branch in ("cls", "box"):
        convolutions = model.distiller.connectors[branch][0].convs
        assert all(conv.weight.grad.abs().sum() > 0 for conv in convolutions)
    assert {p for p in model.parameters() if p.requires_grad} == {
        *model.student.parameters(),
        *model.distiller.connectors.parameters(),
    }
    connector = dict(type="kd_det.PyramidConnector", in_channels=[8] * levels_of(name),
                     out_channels=[16] * levels_of(name))  # fmt: skip
    model = make(name, nd_parts(name, 16, connector), width=16)
    step(model).losses["loss_nd"].backward()
    grads = [conv.weight.grad for conv in model.distiller.connectors["to_teacher"].convs]
    assert sum(float(g.abs().sum()) for g in grads if g is not None) > 0


def test_a_student_without_such_a_head_runs_through_the_teachers():
    # The pyramid of a Faster R-CNN, of strides 8 to 64, through all of a RetinaNet's head.
    from small_heads import detector as two_stage

    parts = cross_parts("retinanet", 0)
    strides = range(1, 5)
    feats = dict(
        type="kd_det.Pyramid",
        levels=[dict(type="ModuleOutputs", source="neck", data_idx=i) for i in strides],
    )
    teacher_cls = layers("retinanet", "retina_cls")
    teacher_cls["levels"] = teacher_cls["levels"][:4]
    parts = dict(
        student_recorders=dict(feats=feats),
        teacher_recorders=dict(cls=teacher_cls),
        connectors=dict(cls=dict(type="kd_det.CrossHead", branch="cls", depth=0, levels=range(4))),
        distill_losses=dict(loss_cls=dict(type="kd_det.BinaryKDLoss")),
        loss_forward_mappings=dict(
            loss_cls=dict(
                s_logits=of("student", "feats", connector="cls"), t_logits=of("teacher", "cls")
            )
        ),
    )
    model = pair(two_stage("faster"), detector("retinanet", 1), parts)
    from small_heads import batch as with_masks

    inputs, samples = with_masks()
    loss = model(inputs, samples, mode="loss")["distill.loss_cls"]
    loss.backward()
    assert loss > 0
    assert any(
        p.grad.abs().sum() > 0 for p in model.student.neck.parameters() if p.grad is not None
    )


def test_the_teacher_stays_out_of_checkpoints():
    model = make("gfl", cross_parts("gfl", 1))
    assert not [name for name in model.state_dict() if not name.startswith("architecture.")]
    assert not any(p.requires_grad for p in model.teacher.parameters())
    assert isinstance(model.distiller.connectors["cls"], nn.Module)
