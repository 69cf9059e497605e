"""Methods of distillation, with published gains and sources."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kd_det.columns import aligned
from kd_det.errors import InvalidInputError
from kd_det.shipped import find_configs

# Gains are quoted where the named source, or its README, gives a figure for a detector.
IN_PAPER = "see the paper's tables"
NO_FIGURE = "no published detector figure"


@dataclass(frozen=True)
class Method:
    """A method: a file of the same name in ``configs/_base_/methods``, or in another of ``NEEDS``.

    Args:
        does: What the student learns from, in one line.
        gain: The published gain of a detector.
        source: Where it comes from.
    """

    does: str
    gain: str
    source: str


METHODS: dict[str, Method] = {
    "robust": Method(
        "CWD at a temperature relative to the teacher, from the teacher's heads",
        "none; digits 17.8 to 39.8, bccd 34.2 to 38.0 (README.md)",
        "kd_det, after arXiv 2011.13256",
    ),
    "robust_fit": Method(
        "robust, from an FPN that is fitted to the teacher's before the first iteration",
        "none; on photographs docs/results/photos.md",
        "kd_det",
    ),
    "robust_nd_kd": Method("robust, ND loss and KD", NO_FIGURE, "kd_det"),
    "kd": Method(
        "logits of the student's RoIs; class maps and boxes of dense heads, or of shared queries",
        "DAB-DETR R18 36.2 to 41.4, R50 42.2 to 45.7",
        "arXiv 1503.02531, 2308.14286, 2211.08071",
    ),
    "crosskd": Method(
        "CrossKD: dense heads, what the teacher's head makes of the student's features",
        "40.2 to 43.7, GFL R50 from R101, 1x",
        "arXiv 2306.11369",
    ),
    "crosskd_pkd": Method("CrossKD and PKD", "40.2 to 43.9, GFL R50 from R101", "arXiv 2306.11369"),
    "robust_crosskd": Method("robust and CrossKD", NO_FIGURE, "kd_det"),
    "robust_memory": Method(
        "robust, and its loss on the encoder's memory of a DETR", NO_FIGURE, "kd_det"
    ),
    "ld": Method("distributions of box edges, GFL's dense heads", IN_PAPER, "arXiv 2102.12252"),
    "kd_nd": Method("KD++: KD, norm and direction of embeddings", IN_PAPER, "arXiv 2305.17007"),
    "dkd": Method("logits, target class apart from the others", IN_PAPER, "arXiv 2203.08679"),
    "dkd_nd": Method("DKD++: DKD and ND loss", NO_FIGURE, "arXiv 2305.17007"),
    "dist": Method(
        "correlations of the logits between and within classes",
        "38.4 to 40.4, Faster R-CNN R50 from Cascade Mask R-CNN X101",
        "arXiv 2205.10536",
    ),
    "dist_nd": Method("DIST++: DIST and ND loss", NO_FIGURE, "arXiv 2305.17007"),
    "review": Method(
        "ReviewKD: the pyramid, through a fusion that is trained along",
        IN_PAPER,
        "arXiv 2104.09044",
    ),
    "review_nd": Method("ReviewKD++: ReviewKD and ND loss", IN_PAPER, "arXiv 2305.17007"),
    "review_nd_kd": Method("ReviewKD, ND loss and KD", NO_FIGURE, "kd_det"),
    "review_nd_fit": Method(
        "robust_fit, ReviewKD from the student's own maps, ND loss on foreground",
        NO_FIGURE,
        "kd_det",
    ),
    "review_dkd": Method("ReviewKD and DKD", IN_PAPER, "arXiv 2203.08679"),
    "cwd": Method(
        "where each channel of the pyramid responds",
        "40.2 to 41.9 on the logits of GFL, R50 from R101 (one-stage)",
        "arXiv 2011.13256, MMRazor",
    ),
    "cwd_nd": Method("CWD and ND loss", NO_FIGURE, "kd_det"),
    "cwd_nd_kd": Method("CWD, ND loss and KD", NO_FIGURE, "kd_det"),
    "pkd": Method(
        "correlation of each channel of the pyramid",
        "38.4 to 40.4, Faster R-CNN R50 from R101, 2x",
        "arXiv 2207.02039, MMRazor",
    ),
    "pkd_nd": Method("PKD and ND loss", NO_FIGURE, "kd_det"),
    "pkd_nd_kd": Method("PKD, ND loss and KD", NO_FIGURE, "kd_det"),
}
DEFAULT = "robust_fit"
# What each part of a method's name needs of a pair (offers.py), for each folder of configs/_base_
# that has methods.
NEEDS = {
    "methods": dict(
        dict.fromkeys(("robust", "cwd", "pkd", "review"), "pyramid"),
        **dict.fromkeys(("kd", "dkd", "dist"), "roi_logits"),
        fit="pyramid",  # where necks are not alike, it is the method without it
        nd="roi_embedding",
    ),
    "methods_dense": dict(
        dict.fromkeys(("robust", "cwd", "pkd", "review"), "pyramid"),
        kd="class_maps",
        ld="distributions",
        crosskd="cross_head",
        nd="dense_embedding",
    ),
    "methods_query": dict(
        dict.fromkeys(("robust", "cwd", "pkd", "review"), "pyramid"),
        kd="shared_queries",
        nd="query_embedding",
        memory="encoder_memory",
    ),
}


@dataclass(frozen=True)
class Form:
    """A method for pairs of some kind: its file, and what it needs of a pair."""

    path: Path
    needs: tuple[str, ...]


def find_forms(method: str) -> list[Form]:
    """The forms of a method, the preferred one first.

    Raises:
        ValueError: For an unknown method; lists the available ones.
    """
    require_known(method)
    base = find_configs() / "_base_"
    paths = {folder: base / folder / f"{method}.py" for folder in NEEDS}
    parts = method.split("_")
    return [
        Form(path, tuple(dict.fromkeys(NEEDS[folder][part] for part in parts)))
        for folder, path in paths.items()
        if path.is_file()
    ]


def reads_centers(method: str) -> bool:
    """Whether a method has the ND loss among its parts, which reads class centers."""
    return "nd" in method.split("_")


def require_known(method: str) -> None:
    """Raise ``ValueError`` for an unknown method; lists the available ones."""
    if method not in METHODS:
        raise InvalidInputError(f"unknown method {method!r}; available: {', '.join(METHODS)}")


def describe_methods(names: Iterable[str] = METHODS) -> str:
    """One line for each method, in columns."""
    rows = [("method", "what the student learns from", "published gain (box AP on COCO)", "source")]
    rows += [(name, m.does, m.gain, m.source) for name, m in METHODS.items() if name in names]
    return "\n".join(aligned(rows))


def find_coco() -> Path:
    """COCO's data and schedule, for what a student's config lacks."""
    return find_configs() / "_base_" / "coco_1x.py"
