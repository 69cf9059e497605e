"""Forms of ReviewKD and the ND loss that are compared: a method each, and what is changed in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from _photos import Change
from mmengine.config import Config

HEADS = ["rpn_head", "roi_head"]
FUSED = dict(
    type="kd_det.DistillOptimWrapperConstructor",
    paramwise_cfg=dict(custom_keys={"distiller.connectors": dict(lr_mult=10)}),
)


def chain(*changes: Change) -> Change:
    """All changes, one after the other."""

    def change(cfg: Config) -> None:
        for each in changes:
            each(cfg)

    return change


def start_from_heads(cfg: Config) -> None:
    """Let the student start with the teacher's heads, as ``robust`` does."""
    cfg.model.init_student_from_teacher = HEADS


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


def argument(name: str, key: str, **record: Any) -> Change:
    """Give a loss one more argument, or another one."""

    def change(cfg: Config) -> None:
        cfg.model.distiller.loss_forward_mappings[name][key] = record

    return change


def fusion(**settings: Any) -> Change:
    """Change the settings of ReviewKD's fusion."""

    def change(cfg: Config) -> None:
        cfg.model.distiller.connectors.review.update(settings)

    return change


def fast_connectors(cfg: Config) -> None:
    """Connectors at ten times the learning rate."""
    cfg.optim_wrapper.constructor = FUSED["type"]
    cfg.optim_wrapper.paramwise_cfg = FUSED["paramwise_cfg"]


def project_embedding(cfg: Config) -> None:
    """The ND loss sees the student's embedding through a learned projection."""
    size = cfg.model.architecture.roi_head.bbox_head.fc_out_channels
    of_teacher = cfg.model.teacher.roi_head.bbox_head.fc_out_channels
    cfg.model.distiller.setdefault("connectors", {})["embedding"] = dict(
        type="kd_det.EmbeddingConnector", in_features=size, out_features=of_teacher
    )
    cfg.model.distiller.loss_forward_mappings.loss_nd.s_emb["connector"] = "embedding"


def read_class_weight(cfg: Config) -> None:
    """The ND loss sees what the teacher's class layer sees."""
    cfg.model.distiller.teacher_recorders["class_weight"] = dict(
        type="Parameter", source="roi_head.bbox_head.fc_cls.weight"
    )


ND = only("loss_nd")
BLENDED = dict(type="kd_det.BlendedNDLoss")
CANDIDATES: dict[str, tuple[str, Change]] = {
    # The start alone: no loss, so that what a loss adds can be told from it.
    "heads": ("kd", chain(start_from_heads, loss("loss_kd", loss_weight=0.0))),
    "nd": ("kd_nd", ND),
    "heads_kd": ("kd", start_from_heads),
    "heads_nd": ("kd_nd", chain(ND, start_from_heads)),
    "heads_cwd": ("cwd", start_from_heads),
    "heads_pkd": ("pkd", start_from_heads),
    "heads_review": ("review", start_from_heads),
    "heads_review_nd": ("review_nd", start_from_heads),
}


def nd_candidates(prefix: str, method: str, *changes: Change) -> dict[str, tuple[str, Change]]:
    """Forms of the ND loss on top of a method."""
    forms: dict[str, Sequence[Change]] = {
        "own25": [loss("loss_nd", own=0.25, **BLENDED)],
        "own50": [loss("loss_nd", own=0.5, **BLENDED)],
        "own75": [loss("loss_nd", own=0.75, **BLENDED)],
        "own100": [loss("loss_nd", own=1.0, **BLENDED)],
        "foreground": [loss("loss_nd", background=False)],
        "foreground3": [loss("loss_nd", background=False, loss_weight=3.0)],
        "own_foreground": [loss("loss_nd", own=1.0, background=False, **BLENDED)],
        "own_foreground3": [loss("loss_nd", own=1.0, background=False, loss_weight=3.0, **BLENDED)],
        "projected": [project_embedding],
        "direction": [loss("loss_nd", type="kd_det.CenterCosineLoss")],
        "sure": [
            loss("loss_nd", own=0.0, **BLENDED),
            argument("loss_nd", "t_logits", recorder="logits", from_student=False),
        ],
        "rows": [
            loss("loss_nd", own=0.0, **BLENDED),
            read_class_weight,
            argument("loss_nd", "class_weight", recorder="class_weight", from_student=False),
        ],
        "kept": [
            loss("loss_nd", own=0.0, keep=True, **BLENDED),
            read_class_weight,
            argument("loss_nd", "class_weight", recorder="class_weight", from_student=False),
        ],
        "published": [],
    }
    return {f"{prefix}_nd_{name}": (method, chain(*changes, *form)) for name, form in forms.items()}


CANDIDATES |= nd_candidates("heads", "kd_nd", ND, start_from_heads)
CANDIDATES |= nd_candidates("plain", "kd_nd", ND)
CANDIDATES |= nd_candidates("robust", "robust_nd_kd", only("loss_nd", "loss_cwd"))


def review_candidates() -> dict[str, tuple[str, Change]]:
    """Forms of ReviewKD: ``<start>_review_<normalisation>[r][f]_w<weight>``."""
    found = {}
    for heads in (False, True):
        for normalize in ("none", "level", "teacher", "channel"):
            for residual in (False, True):
                for fast in (False, True):
                    for weight in (0.1, 0.3, 1, 3, 10, 30):
                        changes: list[Change] = [
                            loss(
                                "loss_review",
                                normalize=None if normalize == "none" else normalize,
                                loss_weight=float(weight),
                            )
                        ]
                        changes += [start_from_heads] * heads
                        changes += [fusion(residual=True)] * residual
                        changes += [fast_connectors] * fast
                        name = f"{'heads' if heads else 'plain'}_review_{normalize}"
                        name += f"{'_r' * residual}{'_f' * fast}_w{weight}"
                        found[name] = ("review", chain(*changes))
                        focused = loss("loss_review", focus=True)
                        found[f"{name}_focus"] = ("review", chain(*changes, focused))
    return found


CANDIDATES |= review_candidates()
RESIDUAL = [
    start_from_heads,
    fusion(residual=True),
    loss("loss_review", normalize="level", loss_weight=10.0),
]
CANDIDATES |= nd_candidates("residual", "review_nd", *RESIDUAL)
CANDIDATES |= nd_candidates("residual_kd", "review_nd_kd", *RESIDUAL)
