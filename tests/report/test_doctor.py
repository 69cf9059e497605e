"""The doctor's verdict on runs that are written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from kd_det.centers import ClassCenters, class_names_text
from kd_det.report.doctor import Diagnosis, Finding, diagnose

SIDES = dict(s=dict(recorder="fpn", from_student=True), t=dict(recorder="fpn", from_student=False))


def write_run(
    folder: Path,
    losses: Mapping[str, list[float]],
    *,
    task: list[float] | None = None,
    scores: list[float] | None = None,
    every: int = 25,
    inputs: Mapping[str, Any] = SIDES,
    weight: float = 1.0,
    **config: Any,
) -> Path:
    """A work directory: values logged at each 25th iteration, and the scores of its epochs.

    Args:
        folder: Where to write.
        losses: Logged values by name; with a dot in the name, as it is logged.
        task: The task's loss; 1.0 if not given.
        scores: mAP of each evaluation.
        every: Iterations between logged values.
        inputs: What the losses read.
        weight: Their ``loss_weight``.
        config: More of the config.
    """
    named = {name if "." in name or "/" in name else f"distill.{name}": x
             for name, x in losses.items()}  # fmt: skip
    task = task or [1.0] * len(next(iter(named.values())))
    lines = []
    for i, own in enumerate(task):
        found = {name: values[i] for name, values in named.items()}
        total = own + sum(v for name, v in found.items() if name.startswith("distill."))
        step = (i + 1) * every
        lines.append({"loss": total, "student.loss_cls": own, **found, "step": step})
    lines += [{"coco/bbox_mAP": score, "step": i + 1} for i, score in enumerate(scores or [])]
    data = folder / "20260101_000000" / "vis_data"
    data.mkdir(parents=True)
    (data / "scalars.json").write_text("\n".join(map(json.dumps, lines)))
    terms = [name.removeprefix("distill.") for name in named if name.startswith("distill.")]
    model = dict(
        architecture=dict(type="A"),
        teacher=dict(type="B"),
        distiller=dict(
            distill_losses={name: dict(type="L2", loss_weight=weight) for name in terms},
            loss_forward_mappings=dict.fromkeys(terms, inputs),
        ),
    )
    entries = {"model": model, **config}
    text = "\n".join(f"{key} = {value!r}" for key, value in entries.items())
    (data / "config.py").write_text(text)
    return folder


def about(diagnosis: Diagnosis, what: str) -> Finding:
    found = [finding for finding in diagnosis.findings if finding.about == what]
    assert len(found) == 1, diagnosis.describe()
    return found[0]


def teach(folder: Path, **metrics: float) -> None:
    named = {f"coco/{name}": value for name, value in metrics.items()}
    (folder / "teacher_metrics.json").write_text(json.dumps({"images": 8, "metrics": named}))


def test_a_healthy_run_has_figures_and_no_problem(tmp_path, monkeypatch):
    run = write_run(
        tmp_path / "run",
        dict(loss_fpn=[2.0, 1.6, 1.2, 1.0, 0.5]),
        task=[2.0, 1.5, 1.2, 1.1, 1.0],
        scores=[0.2, 0.4, 0.38],
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.02)),
        train_dataloader=dict(batch_size=12),
        auto_scale_lr=dict(enable=False, base_batch_size=16),
    )
    teach(run, bbox_mAP=0.5)
    write_run(tmp_path / "run_alone", dict(loss_a=[1]), scores=[0.35])
    found = diagnose(run)
    assert found.problems == [] and found.iterations == 125
    (loss,) = found.losses
    assert (loss.name, loss.first, loss.last, loss.trend) == ("loss_fpn", 2.0, 0.5, 0.25)
    assert loss.share == pytest.approx(0.5 / 1.5)
    assert (loss.gradient, loss.zero_until) == (None, None)
    assert about(found, "teacher").text == (
        "The teacher has coco/bbox_mAP 0.5, the student 0.4 at best, 0.35 without the teacher "
        "(+0.05 by distillation)."
    )
    assert "0.02 for a batch of 12; the config means it for 16." in found.describe()
    assert found.describe().startswith(f"{run}: no problem was found in 125 iterations.")
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["healthy"] is True
    monkeypatch.chdir(run)
    assert diagnose(Path(".")).findings == found.findings


def test_a_loss_that_dwarfs_the_tasks(tmp_path):
    run = write_run(tmp_path, dict(loss_review=[404, 100, 32]), task=[0.9, 0.9, 0.8], weight=2.5)
    assert about(diagnose(run), "dwarfing_loss") == Finding(
        "dwarfing_loss",
        True,
        "loss_review dwarfs the task's losses: 404 against 0.9 at first, 32 against 0.8 at last. "
        "Lower its loss_weight (now 2.5), or hold it at a share of the task's gradient by "
        "kd_det.LossBalanceHook.",
    )


@pytest.mark.parametrize(("alone", "problem"), [(0.35, False), (0.395, True), (None, True)])
def test_a_large_loss_by_which_the_student_gains_is_no_problem(tmp_path, alone, problem):
    run = write_run(tmp_path / "run", dict(loss_a=[50.0, 40.0]), scores=[0.2, 0.4])
    teach(run, bbox_mAP=0.5)
    if alone is not None:
        write_run(tmp_path / "run_alone", dict(loss_b=[1]), scores=[alone])
    found = about(diagnose(run), "dwarfing_loss")
    assert found.problem is problem
    assert ("The student gains all the same" in found.text) is not problem


def test_a_measured_gradient_counts_and_size_does_not(tmp_path):
    """The share is measured before the scale."""
    logged = {"loss_a": [50.0] * 5, "share/loss_a": [8.0] * 5, "scale/loss_a": [0.0625] * 5}
    fine = diagnose(write_run(tmp_path / "fine", logged))
    assert fine.losses[0].gradient == 0.5 and fine.problems == []
    assert fine.losses[0].trend is None  # the hook's scale hides it
    logged["scale/loss_a"] = [0.5] * 5
    found = about(diagnose(write_run(tmp_path / "large", logged)), "dwarfing_loss")
    assert "its gradient at the student's neck is 4 times theirs" in found.text
    logged["scale/loss_a"] = [1e-3] * 5
    found = about(diagnose(write_run(tmp_path / "small", logged)), "weak_loss")
    assert not found.problem and "is 0.008 times theirs" in found.text


def test_the_trend_is_without_a_scheduled_weight(tmp_path):
    warmup = [0.2, 0.4, 0.6, 0.8, 1.0]
    logged = {"loss_a": [2 * x for x in warmup], "weight/loss_a": warmup}
    found = diagnose(write_run(tmp_path / "warm", logged))
    assert found.losses[0].trend == pytest.approx(1) and found.losses[0].last == 2
    assert about(diagnose(write_run(tmp_path / "rise", dict(loss_a=[1, 1, 2, 2, 3]))),
                 "rising_loss").text.startswith("loss_a rises, to 3 times")  # fmt: skip
    found = diagnose(write_run(tmp_path / "task", dict(loss_a=[1] * 5), task=[1, 1, 2, 2, 3]))
    assert about(found, "task_loss").problem


def test_a_gradient_as_the_optimizer_sees_it_needs_no_factors(tmp_path):
    logged = {
        "loss_a": [1.0] * 5,
        "gradient/loss_a": [4.0] * 4 + [0.25],
        "weight/loss_a": [0.5] * 5,
    }
    assert diagnose(write_run(tmp_path, logged)).losses[0].gradient == 0.25


def test_rounding_is_no_loss(tmp_path):
    """KL between equal things is not exactly 0."""
    run = write_run(tmp_path, dict(loss_a=[2e-9] * 5), inputs=STUDENT_ALONE)
    found = diagnose(run)
    assert "recorded of the student" in about(found, "zero_loss").text
    assert not any(each.about == "weak_loss" for each in found.findings)


STUDENT_ALONE = {name: dict(value, from_student=True) for name, value in SIDES.items()}
WITH_CENTERS = dict(s_emb=SIDES["s"], t_emb=SIDES["t"], labels=SIDES["s"])


@pytest.mark.parametrize(
    ("options", "problem", "reason"),
    [
        (dict(weight=0.0), False, "since its loss_weight is 0"),
        (dict(more={"weight/loss_a": [0, 0, 1]}), False, "since kd_det.LossWeightHook holds"),
        (dict(more={"weight/loss_a": [0, 1, 1]}), True, "is empty"),
        (dict(inputs=STUDENT_ALONE), True, r"recorded of the student (from_student = True)"),
        (dict(inputs=WITH_CENTERS), True, "no class of the batches has a class center"),
        (dict(inputs={**SIDES, "labels": SIDES["s"]}), True, "the label of an object"),
        (dict(inputs=SIDES), True, "is empty (no RoI or positive was sampled) or the same"),
    ],
)
def test_a_loss_that_is_zero_for_50_iterations(tmp_path, options, problem, reason):
    more = options.pop("more", {})
    run = write_run(tmp_path, {"loss_a": [0, 0, 1], **more}, **options)
    found = about(diagnose(run), "zero_loss")
    assert found.problem == problem and reason in found.text
    assert found.text.startswith("loss_a is 0 up to iteration 50; ")


def test_how_long_it_is_zero(tmp_path):
    def texts(values: list[float], every: int) -> list[str]:
        run = write_run(tmp_path / f"{len(values)}_{every}", dict(loss_a=values), every=every)
        return [each.text for each in diagnose(run).findings if each.about == "zero_loss"]

    assert texts([0, 1, 1], 49) == []
    assert "up to iteration 50;" in texts([0, 1, 1], 50)[0]
    # A short training that never saw another value.
    assert "in all that was logged" in texts([0], 3)[0]


def test_the_student_alone_of_the_same_command_is_found(tmp_path):
    run = write_run(tmp_path / "distilled", dict(loss_a=[1]), scores=[0.3])
    teach(run, bbox_mAP=0.5)
    write_run(tmp_path / "alone", dict(loss_a=[1]), scores=[0.25])
    assert "0.25 without the teacher (+0.05" in about(diagnose(run), "teacher").text


def test_teachers_that_are_bad_or_unknown(tmp_path):
    run = write_run(tmp_path / "run", dict(loss_a=[1]), scores=[0.3, 0.31])
    unknown = about(diagnose(run), "teacher")
    assert not unknown.problem and "accuracy is unknown" in unknown.text
    teach(run, bbox_mAP=0.31)
    assert "no better than its student" in about(diagnose(run), "teacher").text
    # A student may be better than its teacher: what counts is that without one.
    write_run(tmp_path / "run_alone", dict(loss_a=[1]), scores=[0.25])
    assert not about(diagnose(run), "teacher").problem
    teach(run, bbox_mAP=0.2)
    assert "no better than the student alone" in about(diagnose(run), "teacher").text
    for metrics in (dict(bbox_mAP=0.0), {}):
        teach(run, **metrics)
        found = about(diagnose(run), "teacher")
        assert found.problem and "there is nothing to learn" in found.text


def test_classes_without_a_center(tmp_path):
    run = write_run(tmp_path, dict(loss_nd=[1]))
    names = class_names_text(["cat", "dog", "background"])
    centers = ClassCenters(3, 2, dict(class_names=names))
    centers.update(torch.ones(2, 2), torch.tensor([0, 2]))
    centers.save(run / "class_centers.safetensors")
    found = about(diagnose(run), "centers")
    assert found.text.startswith("1 of 3 classes have no class center in class_centers.safet")
    assert found.problem and "(dog)" in found.text
    centers = ClassCenters(3, 2, dict(class_names=names))
    centers.update(torch.ones(2, 2), torch.tensor([0, 1]))
    centers.save(run / "class_centers.safetensors")  # of annotated boxes alone
    assert "centers" not in {finding.about for finding in diagnose(run).findings}
    (run / "class_centers.safetensors").write_bytes(b"cut")
    assert "cannot be read" in about(diagnose(run), "centers").text


@pytest.mark.parametrize(
    ("scaling", "batch", "log", "problem", "text"),
    [
        (dict(base_batch_size=16), 4, "", True, "4; the config means it for 16, which would be "
         "0.005 here (--auto-scale-lr scales it)"),
        (dict(base_batch_size=16), 4, "    GPU number: 4\n", False, "16 (4 processes); the"),
        (dict(enable=True, base_batch_size=16), 4, "", False, "0.005 for a batch of 4: 0.02 for"),
        ({}, 4, "", False, "does not say which batch it is for"),
    ],
)  # fmt: skip
def test_learning_rate_against_batch_size(tmp_path, scaling, batch, log, problem, text):
    run = write_run(
        tmp_path,
        dict(loss_a=[1]),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.02)),
        train_dataloader=dict(batch_size=batch),
        auto_scale_lr=scaling,
    )
    (run / "20260101_000000" / "20260101_000000.log").write_text(log)
    found = about(diagnose(run), "learning_rate")
    assert found.problem == problem and text in found.text


def test_steps_that_are_nan(tmp_path):
    nan = float("nan")
    hooks = dict(finite_loss=dict(type="kd_det.FiniteLossHook", policy="skip"))
    run = write_run(tmp_path / "run", dict(loss_a=[1, nan, 2]), default_hooks=hooks)
    found = diagnose(run)
    assert "in 1 of 3 logged values, first at iteration 50" in about(found, "nonfinite_steps").text
    assert found.losses[0].last == 2
    json.dumps(found.as_dict(), allow_nan=False)
    why = "distill.loss_a not finite in iteration 31 (images a.png); norms: student weights 3"
    for rank in (0, 1):
        path = run / f"nonfinite_iter_31_rank_{rank}.safetensors"
        save_file({"inputs.0": torch.ones(1)}, path, metadata=dict(why=why))
    text = about(diagnose(run), "nonfinite_steps").text
    assert text.startswith(
        "1 of 75 steps had a NaN or infinite loss and were left out (iterations 31). "
        "distill.loss_a not finite in iteration 31 (images a.png). Lower"
    )


def test_a_training_without_a_line_of_its_log(tmp_path):
    run = write_run(tmp_path / "run", dict(loss_a=[1]))
    (run / "20260101_000000" / "vis_data" / "scalars.json").write_text("")
    found = diagnose(run)
    assert about(found, "log").problem and found.iterations == 0 and found.losses == []
    with pytest.raises(FileNotFoundError, match="is no work directory of a training"):
        diagnose(tmp_path)
