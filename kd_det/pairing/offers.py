"""Find what a pair offers to methods, and which methods fit it."""

from __future__ import annotations

from kd_det.pairing import PairingError, methods
from kd_det.pairing.dense_parts import NO_DENSE_HEAD, find_dense_offers
from kd_det.pairing.detectors import Detector
from kd_det.pairing.distiller import common_levels, strides
from kd_det.pairing.memory_parts import why_no_memory
from kd_det.pairing.methods import METHODS, Form
from kd_det.pairing.query_parts import NO_QUERIES, find_query_offers

NO_ROIS = "RoIs are not scored by"
NOTHING_FITS = (
    "no method fits them; give two detectors with maps of a common stride, as those with an FPN"
)


def find_offers(student: Detector, teacher: Detector) -> dict[str, str]:
    """For each need that a method may have, the reason why the pair lacks it, or empty."""
    rois = _why_no_rois(student, teacher)
    return {
        "pyramid": _why_no_pyramid(student, teacher),
        "roi_logits": rois,
        "roi_embedding": rois,
        **find_dense_offers(student, teacher),
        **find_query_offers(student, teacher),
        "encoder_memory": why_no_memory(student, teacher),
    }


def choose_form(method: str, student: Detector, teacher: Detector) -> Form:
    """Choose the form of a method that fits a pair.

    Raises:
        PairingError: If there is none; says why, and which methods fit.
        ValueError: For an unknown method.
    """
    offers = find_offers(student, teacher)
    forms = methods.find_forms(method)
    for form in forms:
        if not any(offers[need] for need in form.needs):
            return form
    fitting = [name for name in METHODS if not why_not(name, offers)]
    instead = f"take one of {', '.join(fitting)}" if fitting else NOTHING_FITS
    raise PairingError(
        f"{teacher.name} cannot teach {student.name} by the method {method}: "
        f"{why_not(method, offers)}; {instead}"
    )


def why_not(method: str, offers: dict[str, str]) -> str:
    """Explain why no form of a method fits a pair; empty if one does."""
    reasons = [
        [offers[need] for need in form.needs if offers[need]] for form in methods.find_forms(method)
    ]
    if not all(reasons):
        return ""
    found = list(dict.fromkeys(each[0] for each in reasons))
    # Of two dense detectors the forms for RoIs and queries need no word.
    farther = (NO_ROIS, NO_DENSE_HEAD, NO_QUERIES)
    nearer = [reason for reason in found if not reason.startswith(farther)]
    return "; ".join(nearer or found)


def describe_fitting(student: Detector, teacher: Detector) -> str:
    """The list of methods that fit a pair, then of the others with the reason."""
    offers = find_offers(student, teacher)
    reasons = {name: why_not(name, offers) for name in METHODS}
    fitting = [name for name, reason in reasons.items() if not reason]
    sides = [f"{side.title} ({side.name})" for side in (teacher, student)]
    lines = [f"{sides[0]} can teach {sides[1]} by:", methods.describe_methods(fitting)]
    if not fitting:
        lines = [f"{sides[0]} cannot teach {sides[1]}: {NOTHING_FITS}"]
    others: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        if reason:
            others.setdefault(reason, []).append(name)
    lines += [f"not by {', '.join(names)}: {reason}" for reason, names in others.items()]
    return "\n".join(lines)


def _why_no_pyramid(student: Detector, teacher: Detector) -> str:
    if common_levels(student.levels, teacher.levels):
        return ""
    return (
        f"{student.title} has maps of strides {strides(student.levels)} and {teacher.title} of "
        f"{strides(teacher.levels)}, none in common"
    )


def _why_no_rois(student: Detector, teacher: Detector) -> str:
    without = [side.title for side in (student, teacher) if not side.scores_rois]
    if not without:
        return ""
    return f"{NO_ROIS} {' and '.join(without)}"
