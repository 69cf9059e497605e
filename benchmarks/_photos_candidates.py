"""Forms of ReviewKD and the ND loss that are compared: a method each, and what is changed in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from _photos import Change
from mmengine.config import Config

HEADS = ["rpn_head", "roi_head"]


def chain(*changes: Change) -> Change:
    """All changes, one after the other."""

    def change(cfg: Config) -> None:
        for each in changes:
            each(cfg)

    return change


def start_from_heads(cfg: Config) -> None:
    """Let the student start with the teacher's heads, as ``robust`` does."""
    cfg.model.init_student_from_teacher = HEADS


def fit_neck(cfg: Config) -> None:
    """Let the student start with a fitted FPN too, as ``robust_fit`` does."""
    cfg.model.init_student_from_teacher = ["neck", *HEADS]
    cfg.custom_hooks = [*cfg.get("custom_hooks", []), dict(type="kd_det.NeckFitHook")]


def only(*kept: str) -> Change:
    """Leave all other losses out."""

    def change(cfg: Config) -> None:
        distiller = cfg.model.distiller
        for name in set(distiller.distill_losses) - set(kept):
            del distiller.distill_losses[name], distiller.loss_forward_mappings[name]

    return change


def loss(name: str, **settings: Any) -> Change:
    """Change the settings of a loss."""

    def change(cfg: Config) -> None:
        cfg.model.distiller.distill_losses[name].update(settings)

    return change


def add_cwd(cfg: Config) -> None:
    """Add the loss of ``robust``, on the student's own pyramid."""
    distiller = cfg.model.distiller
    distiller.distill_losses["loss_cwd"] = dict(
        type="kd_det.CWDLoss", loss_weight=10.0, tau=0.5, relative=True
    )
    distiller.loss_forward_mappings["loss_cwd"] = dict(
        s_feats=dict(recorder="fpn", from_student=True),
        t_feats=dict(recorder="fpn", from_student=False),
    )


def residual_review(weight: float) -> Change:
    """ReviewKD's fusion added to the student's map, and HCL in units of the teacher's spread."""

    def change(cfg: Config) -> None:
        distiller = cfg.model.distiller
        distiller.connectors.review.residual = True
        distiller.distill_losses.loss_review.update(normalize="level", loss_weight=weight)

    return change


# Forms of the ND loss.
FORMS: dict[str, Sequence[Change]] = {
    "nd": [],
    "nd_foreground": [loss("loss_nd", background=False)],
}
# What they are added to: a method that has an ND loss, and changes.
ADDED_TO: dict[str, tuple[str, Sequence[Change]]] = {
    "robust_fit": ("robust_nd_kd", [only("loss_cwd", "loss_nd"), fit_neck]),
    "fit_review": ("review_nd", [fit_neck, residual_review(10.0)]),
    "robust_fit_review": ("review_nd", [fit_neck, residual_review(1.0), add_cwd]),
    "robust": ("robust_nd_kd", [only("loss_cwd", "loss_nd")]),
    "heads_review": ("review_nd", [start_from_heads, residual_review(10.0)]),
    "heads": ("kd_nd", [start_from_heads, only("loss_nd")]),
    "kd": ("kd_nd", []),
}
CANDIDATES: dict[str, tuple[str, Change]] = {
    # A start without a loss, so that what a loss adds can be told from it.
    "heads": ("kd", chain(start_from_heads, loss("loss_kd", loss_weight=0.0))),
    "fit": ("robust_fit", loss("loss_cwd", loss_weight=0.0)),
    "fit_kd": ("kd", fit_neck),
    "robust_fit_kd": ("kd", chain(fit_neck, add_cwd)),
}
for _base, (_method, _changes) in ADDED_TO.items():
    CANDIDATES |= {
        f"{_base}_{_form}": (_method, chain(*_changes, *_more)) for _form, _more in FORMS.items()
    }
    if _method == "review_nd":
        CANDIDATES[_base] = ("review", chain(*_changes))
