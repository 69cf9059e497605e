"""Options of ``model.speed`` change results by rounding at most; what cannot be is refused."""

from __future__ import annotations

import pytest
import torch
from dense_parts import cross_parts
from small import build
from small_dense import batch as dense_batch
from small_dense import detector, pair
from torch import nn
from torch.utils._pytree import tree_flatten

from kd_det import TeacherDistill
from kd_det.algorithms import teacher as teacher_room
from kd_det.algorithms.checkpoint import weights_sha256
from kd_det.algorithms.speed import Speed
from kd_det.algorithms.teacher import fuse
from kd_det.algorithms.wiring import WiringError
from kd_det.centers import ClassCenters


def model_with(cfg, **speed: object):
    torch.manual_seed(0)
    cfg.model.speed = speed
    model = build(cfg.model)
    centers = ClassCenters(11, 128)
    generator = torch.Generator().manual_seed(1)
    centers.update(torch.rand(22, 128, generator=generator), torch.arange(22) % 11)
    for loss in model.distiller.distill_losses.values():
        if hasattr(loss, "set_centers"):
            loss.set_centers(centers)
    return model.train()


def losses_and_gradients(model, batch: dict, dtype=torch.float32) -> tuple[dict, list]:
    torch.manual_seed(0)
    model.to(dtype)
    data = model.data_preprocessor(dict(batch), training=True)
    data["inputs"] = data["inputs"].to(dtype)
    for sample in data["data_samples"]:
        sample.gt_instances.bboxes = sample.gt_instances.bboxes.to(dtype)
    losses = model(**data, mode="loss")
    model.parse_losses(losses)[0].backward()
    flat = {k: v for k, v in losses.items() if isinstance(v, torch.Tensor)}
    return flat, [p.grad for p in model.student.parameters() if p.grad is not None]


PLAIN: dict[torch.dtype, tuple[dict, list]] = {}  # of a step without options


@pytest.mark.parametrize(
    ("speed", "tolerance"),
    [
        (dict(channels_last=True), 1e-6),
        (dict(fuse_conv_bn=True), 1e-6),
        (dict(compile_teacher=dict(backend="eager")), 1e-6),
        (dict(overlap_teacher=True), 0),  # on a CPU, one after the other as ever
        (dict(teacher_dtype="float32"), 0),
        (dict(teacher_dtype="bfloat16"), 0.1),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_step_is_the_same(cfg, batch, speed, tolerance):
    # In float64, where rounding chooses no other proposal.
    dtype = torch.float32 if "teacher_dtype" in speed else torch.float64
    if dtype not in PLAIN:
        PLAIN[dtype] = losses_and_gradients(model_with(cfg), batch, dtype)
    plain, plain_gradients = PLAIN[dtype]
    losses, gradients = losses_and_gradients(model_with(cfg, **speed), batch, dtype)
    assert losses.keys() == plain.keys()
    for name, value in losses.items():
        torch.testing.assert_close(value, plain[name], rtol=tolerance, atol=tolerance)
    if tolerance < 0.1:
        scale = max(float(g.abs().max()) for g in plain_gradients)
        for a, b in zip(gradients, plain_gradients):
            torch.testing.assert_close(a, b, rtol=0, atol=tolerance * scale)


def test_channels_last_is_the_layout_of_all_three(cfg, batch):
    model = model_with(cfg, channels_last=True)
    seen = []
    for part in (model.student.backbone, model.teacher.backbone, model.distiller.connectors.review):
        part.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    losses_and_gradients(model, batch)
    maps = [x for x in tree_flatten(seen)[0] if x.shape[2] > 1]
    assert len(maps) > 2
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in maps)


@pytest.mark.parametrize(
    ("autocast", "teacher_dtype"), [(False, torch.bfloat16), (True, torch.float32)]
)
def test_the_teacher_has_a_precision_of_its_own(cfg, batch, autocast, teacher_dtype):
    model = model_with(cfg, teacher_dtype=str(teacher_dtype).removeprefix("torch."))
    seen = {}
    for who in ("student", "teacher"):
        layer = getattr(model, who).roi_head.bbox_head.fc_cls
        layer.register_forward_hook(lambda _, __, output, who=who: seen.update({who: output.dtype}))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        model(**model.data_preprocessor(dict(batch), training=True), mode="loss")
    student_dtype = torch.bfloat16 if autocast else torch.float32
    assert seen == {"student": student_dtype, "teacher": teacher_dtype}


def test_a_fused_teacher_has_no_batch_norm_and_its_old_digest(cfg):
    plain, fused = model_with(cfg), model_with(cfg, fuse_conv_bn=True)
    backbone = fused.teacher.backbone
    assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in fused.student.modules())
    assert fused.fixed_teacher.sha256 == weights_sha256(plain.teacher)


def test_a_teacher_in_16_bits_is_stored_so_and_computes_what_autocast_does(cfg, batch):
    model, plain = model_with(cfg, teacher_dtype="bfloat16"), model_with(cfg)
    stored = {name for name, p in model.teacher.named_parameters() if p.dtype == torch.bfloat16}
    layers = (nn.Conv2d, nn.Linear)
    assert stored == {
        f"{name}.{kind}"
        for name, layer in model.teacher.named_modules()
        if isinstance(layer, layers)
        for kind, _ in layer.named_parameters()
    }
    assert model.fixed_teacher.sha256 == weights_sha256(plain.teacher)
    images = model.data_preprocessor(dict(batch))["inputs"]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = plain.teacher.extract_feat(images)
    with model.fixed_teacher.forward_context():
        assert all(map(torch.equal, model.teacher.extract_feat(images), expected))
    # As MMRazor's validation loop runs it.
    assert len(model.teacher.val_step(dict(batch))) == len(images)


def test_a_student_starts_from_weights_as_they_were_loaded(cfg):
    cfg.model.init_student_from_teacher = ["neck.fpn_convs"]
    plain, model = model_with(cfg), model_with(cfg, teacher_dtype="bfloat16", fuse_conv_bn=True)
    for each in (plain, model):
        each.init_weights()
    weight = plain.student.neck.fpn_convs[0].conv.weight
    assert torch.equal(weight, plain.teacher.neck.fpn_convs[0].conv.weight)
    assert torch.equal(weight, model.student.neck.fpn_convs[0].conv.weight)


def test_the_digest_is_computed_once(cfg, monkeypatch):
    calls: list[nn.Module] = []
    monkeypatch.setattr(teacher_room, "weights_sha256", lambda model: calls.append(model) or "a")
    fixed = model_with(cfg, teacher_dtype="bfloat16", fuse_conv_bn=True).fixed_teacher
    assert {fixed.sha256, fixed.sha256} == {"a"} and len(calls) == 1


def test_each_pass_of_a_compiled_teacher_begins_a_step_of_cuda_graphs(cfg, batch, monkeypatch):
    order: list[str] = []
    compiler = pytest.importorskip("torch.compiler", reason="torch 2.0 has no such call")
    if not hasattr(compiler, "cudagraph_mark_step_begin"):
        pytest.skip("this torch has no such call")
    monkeypatch.setattr(compiler, "cudagraph_mark_step_begin", lambda: order.append("step"))
    model = model_with(cfg, compile_teacher=dict(backend="eager"))
    for part in ("backbone", "neck"):
        module = getattr(model.teacher, part)
        module.register_forward_hook(lambda *_, part=part: order.append(part))
    for _ in range(2):
        losses_and_gradients(model, batch)
    assert order == ["step", "backbone", "neck"] * 2


def test_a_teacher_that_fusing_would_change_is_refused():
    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.bn = nn.BatchNorm2d(4)

        def forward(self, x):
            return self.bn(self.conv(x).relu())  # not what the order of names says

    class Teacher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = Backbone()

    teacher = Teacher().eval()
    teacher.backbone.bn.running_mean.fill_(0.5)
    with pytest.raises(WiringError, match="fuse_conv_bn: the teacher's batch norms do not"):
        fuse(teacher)


def test_losses_of_mmrazor_get_maps_in_the_usual_order(cfg, batch):
    level = {side: dict(from_student=side == "S", recorder="fpn", data_idx=0) for side in "ST"}
    distiller = cfg.model.distiller
    distiller.distill_losses.loss_cwd = dict(type="mmrazor.ChannelWiseDivergence", tau=1.0)
    distiller.loss_forward_mappings.loss_cwd = {f"preds_{k}": v for k, v in level.items()}
    plain, _ = losses_and_gradients(model_with(cfg), batch, torch.float64)
    losses, _ = losses_and_gradients(model_with(cfg, channels_last=True), batch, torch.float64)
    torch.testing.assert_close(losses["distill.loss_cwd"], plain["distill.loss_cwd"])


@pytest.mark.parametrize("option", ["fuse_conv_bn", "compile_teacher"])
def test_a_record_inside_of_what_is_changed_is_refused(cfg, option):
    recorders = cfg.model.distiller.teacher_recorders
    recorders.stage = dict(type="ModuleOutputs", source="backbone.layer1")
    with pytest.raises(WiringError, match=r"found one of 'backbone\.layer1'"):
        model_with(cfg, **{option: True})


@pytest.mark.parametrize(
    ("speed", "message"),
    [
        (dict(teacher_type="bfloat16"), r"expected options out of .*teacher_dtype.*teacher_type"),
        (dict(teacher_dtype="half"), "one of .*bfloat16.* found 'half'"),
    ],
)
def test_wrong_options_are_an_error(cfg, speed, message):
    with pytest.raises(ValueError, match=message):
        model_with(cfg, **speed)


def test_deliveries_and_overlap_exclude_each_other():
    with pytest.raises(ValueError, match=r"overlap_teacher .* found \['mixing'\]"):
        TeacherDistill(
            dict(distill_deliveries=dict(mixing=dict())),
            teacher=nn.Module(),
            architecture=nn.Module(),
            speed=dict(overlap_teacher=True),
        )


def test_the_old_name_of_an_option_stays_valid():
    with pytest.warns(DeprecationWarning, match="fold_teacher is now called fuse_conv_bn"):
        assert Speed.of(dict(fold_teacher=True)) == Speed(fuse_conv_bn=True)


def test_a_head_that_runs_on_the_students_maps_is_not_stored_in_16_bits():
    speed = dict(teacher_dtype="bfloat16")
    model = pair(detector("gfl", 0), detector("gfl", 1), cross_parts("gfl", 1), speed=speed)
    stored = {
        n.split(".")[0] for n, p in model.teacher.named_parameters() if p.dtype != torch.float32
    }
    assert stored == {"backbone", "neck"}
    inputs, samples = dense_batch()
    losses = model.train().loss(inputs, samples)
    model.parse_losses(losses)[0].backward()
    crossed = [value for name, value in losses.items() if name.startswith("distill")]
    assert crossed and all(torch.as_tensor(value).isfinite().all() for value in crossed)
