"""What of the teacher a student starts from."""

from __future__ import annotations

from typing import Any

from kd_det.algorithms import WiringError, neck_fit, student_init
from kd_det.pairing.detectors import Detector
from kd_det.pairing.families import TwoStage

NECK = "neck"
# Share of the weight of a loss that is tuned for students with the teacher's heads, for others;
# measured across kinds (docs/which_method.md).
UNTRAINED_HEADS = 0.2
# A head starts from the teacher if that sets at least this share of its values. Of heads that
# differ in width the biases alone agree, which are of no use without the weights. What of a neck
# does not agree is fitted.
LEAST_SHARE = 0.5


def fit_start(model: dict[str, Any], student: Detector, teacher: Detector) -> list[str]:
    """Fit the start that a method's ``model`` asks for to a pair, in place; returns the decisions.

    Where the student's heads start untrained, losses that are tuned for trained ones weigh less.
    """
    # The old name of the option is kept: the algorithm warns of it.
    option = "inherit" if "inherit" in model else "init_student_from_teacher"
    wanted = model.get(option)
    if not wanted:
        return []
    possible, decisions = [], []
    modules, said = _start_modules(wanted, student, teacher)
    decisions += said
    for module in modules:
        try:
            rows = student_init.plan(student.model, teacher.model, [module])
        except WiringError:
            decisions.append(f"{module}: nothing of the teacher's fits the student")
            continue
        number = sum(row.agrees for row in rows)
        if module != NECK and student_init.covered_share(rows) < LEAST_SHARE:
            decisions.append(
                f"{module}: only {number} of the teacher's tensors fit, with less than "
                f"{LEAST_SHARE:.0%} of the student's values; it starts as its config says"
            )
            continue
        possible.append(module)
        decisions.append(f"{module}: the student starts from {number} of the teacher's tensors")
    model[option] = possible
    if set(possible) <= {NECK}:
        decisions += _weigh_for_untrained_heads(model["distiller"])
    return decisions


def _weigh_for_untrained_heads(distiller: dict[str, Any]) -> list[str]:
    decisions = []
    for name, loss in distiller["distill_losses"].items():
        if loss.get("relative"):  # the loss of the methods that start from the teacher's heads
            weight = loss["loss_weight"]
            loss["loss_weight"] = weight * UNTRAINED_HEADS
            decisions.append(
                f"{name} weighs {loss['loss_weight']:g}, not {weight:g}, since the student's "
                "heads start untrained"
            )
    return decisions


def _start_modules(
    wanted: list[str], student: Detector, teacher: Detector
) -> tuple[list[str], list[str]]:
    """What the student may start from, and what was decided; ``wanted`` is a two-stage pair's."""
    heads, decisions = _start_heads(wanted, student, teacher)
    if NECK not in wanted or not heads:
        return heads, decisions
    try:
        neck_fit.require_alike(student.model, teacher.model)
    except WiringError as error:
        return heads, [*decisions, f"the student's neck starts as its config says: {error}"]
    fitted = (
        "the lateral convolutions of the student's FPN are fitted to the teacher's outputs before "
        "the first iteration"
    )
    return [NECK, *heads], [*decisions, fitted]


def _start_heads(
    wanted: list[str], student: Detector, teacher: Detector
) -> tuple[list[str], list[str]]:
    as_config = "the student's heads start as its config says"
    if student.family is not teacher.family:
        text = f"a {teacher.family.name} teacher has no heads for a {student.family.name} student"
        return [], [f"{as_config}: {text}"]
    found = student.family.start_modules(student.model, teacher.model)
    if isinstance(student.family, TwoStage):
        return [name for name in wanted if name in found], []
    return found, [] if found else [f"{as_config}: none is like the teacher's"]
