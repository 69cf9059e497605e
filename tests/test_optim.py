"""Settings by parameter name reach student and connectors, and the teacher is passed over."""

from __future__ import annotations

from pathlib import Path

from small import build, digits_config


def test_connectors_learn_faster_and_the_teacher_not_at_all(
    digits: Path, teacher_ckpt: Path, tmp_path: Path, monkeypatch
):
    from mmengine.optim import build_optim_wrapper
    from mmengine.optim.optimizer import default_constructor

    warnings: list[str] = []
    monkeypatch.setattr(
        default_constructor,
        "print_log",
        lambda text, level=20, **_: warnings.append(text) if level > 20 else None,
    )
    options = {"model.teacher_ckpt": str(teacher_ckpt)}
    cfg = digits_config("review_nd_kd", digits, tmp_path, **options)
    model = build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer

    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    expected = {id(p): 2e-3 for p in model.student.parameters()}
    expected |= {id(p): 2e-2 for p in model.distiller.connectors.parameters()}
    assert rates == expected
    assert warnings == []
