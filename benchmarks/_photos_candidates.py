"""Forms of ReviewKD and the ND loss that are compared: a method each, and what is changed in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from _photos import Change
from mmengine.config import Config


def chain(*changes: Change) -> Change:
    """All changes, one after the other."""

    def change(cfg: Config) -> None:
        for each in changes:
            each(cfg)

    return change


def start_from_heads(cfg: Config) -> None:
    """Let the student start with the teacher's heads alone, as ``robust`` does."""
    cfg.model.init_student_from_teacher = ["rpn_head", "roi_head"]
    drop_hooks(cfg, "kd_det.NeckFitHook")


def drop_hooks(cfg: Config, *types: str) -> None:
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook.type not in types]


def without(*names: str) -> Change:
    """Leave losses out, with the connectors and hooks that no other loss uses."""

    def change(cfg: Config) -> None:
        distiller = cfg.model.distiller
        for name in names:
            del distiller.distill_losses[name], distiller.loss_forward_mappings[name]
        arguments = [
            arg for each in distiller.loss_forward_mappings.values() for arg in each.values()
        ]
        used = {arg.get("connector") for arg in arguments}
        for name in set(distiller.get("connectors") or {}) - used:
            del distiller.connectors[name]
        if "loss_nd" in names:
            drop_hooks(cfg, "kd_det.ClassCenterHook", "kd_det.EmbeddingMonitorHook")

    return change


def loss(name: str, **settings: Any) -> Change:
    """Change the settings of a loss."""

    def change(cfg: Config) -> None:
        cfg.model.distiller.distill_losses[name].update(settings)

    return change


# Forms of the ND loss.
FORMS: dict[str, Change] = {
    "nd": loss("loss_nd", background=True),
    "nd_foreground": loss("loss_nd", background=False),
}
# What they are added to: a method that has an ND loss, and changes.
ADDED_TO: dict[str, tuple[str, Sequence[Change]]] = {
    "robust_fit": ("review_nd_fit", [without("loss_review")]),
    "robust_fit_review": ("review_nd_fit", []),
    "heads_review": (
        "review_nd_fit",
        [start_from_heads, without("loss_cwd"), loss("loss_review", loss_weight=10.0)],
    ),
    "robust": ("robust_nd_kd", [without("loss_kd")]),
    "kd": ("kd_nd", []),
}
CANDIDATES: dict[str, tuple[str, Change]] = {
    # A start without a loss, so that what a loss adds can be told from it.
    "heads": ("robust", loss("loss_cwd", loss_weight=0.0)),
    "fit": ("robust_fit", loss("loss_cwd", loss_weight=0.0)),
}
for _base, (_method, _changes) in ADDED_TO.items():
    CANDIDATES |= {
        f"{_base}_{_form}": (_method, chain(*_changes, _more)) for _form, _more in FORMS.items()
    }
    if _method == "review_nd_fit":
        CANDIDATES[_base] = (_method, chain(*_changes, without("loss_nd")))
del CANDIDATES["robust_fit"]  # a method of its own
