"""Forms of the ND loss on a box head alone: what each does to class and box, in seconds a run.

The pyramid of a trained plain student stays as it is. Its RoIs are sampled once, as in training,
and their features kept, with the teacher's embeddings of the same RoIs. A box head is then trained
on them from new weights, by its own losses and a form of the ND loss, with many seeds. All forms
see the same RoIs.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _blended_nd import BlendedNDLoss
from mmengine.config import Config
from photos_target import trained
from torch import Tensor

from kd_det.centers import ClassCenters
from kd_det.commands import common
from kd_det.files import write_atomically
from kd_det.losses import CenterCosineLoss, NDLoss

PROG = "python benchmarks/photos_head.py"
METRICS = ("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "class right", "IoU")
ROIS, PROPOSALS, BATCH = 64, 100, 512


@dataclass
class Rois:
    """Sampled RoIs: features, the teacher's embeddings and logits, targets of the box head."""

    x: Tensor
    t_emb: Tensor
    t_logits: Tensor
    rois: Tensor
    targets: tuple[Tensor, ...]


Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def main() -> None:
    args = parse_args()
    from mmdet.utils import register_all_modules

    register_all_modules()
    teacher, student, cfg = models(args.root, args.student)
    with torch.no_grad():
        learn = gather(teacher, student, cfg, cfg.train_dataloader)
        held_out = gather(teacher, student, cfg, cfg.val_dataloader)
        judge = gather_proposals(student, cfg)
    losses = forms(args.root, teacher)
    print(f"{len(learn.x)} RoIs to learn from, {len(judge)} images to judge", flush=True)
    out = args.root / "heads" / f"{args.student}_epochs{args.epochs}_weight{args.weight:g}.json"
    found: dict[str, dict[str, list[float]]] = json.loads(out.read_text()) if out.is_file() else {}
    for seed in range(args.seeds):
        for name in args.forms or losses:
            if str(seed) not in found.setdefault(name, {}):
                head = train(student, learn, losses[name], args.epochs, args.weight, seed)
                values = [*evaluate(student, head, judge, cfg), *on_foreground(head, held_out)]
                found[name][str(seed)] = values
                print(name, seed, found[name][str(seed)], flush=True)
                write_atomically(out, json.dumps(found, indent=1).encode())
    print(table(found))


def parse_args() -> argparse.Namespace:
    parser = common.make_parser(PROG, __doc__, "%(prog)s work_dirs/photos_cards_192")
    add = parser.add_argument
    add("root", type=Path, help="folder of the runs of photos.py")
    add("--student", default="lite0_plain_e3_s0", help="run whose pyramid is taken; %(default)s")
    add("--forms", nargs="+", metavar="FORM", help="default: all")
    add("--epochs", type=int, default=6, help="default: %(default)s")
    add("--weight", type=float, default=1.0, help="of the ND loss; default: %(default)s")
    add("--seeds", type=int, default=3, help="their number; default: %(default)s")
    return parser.parse_args()


def models(root: Path, student: str) -> tuple[Any, Any, Config]:
    """Teacher and student with their weights, and the student's config."""
    found = []
    for name in ("teacher", student):
        cfg = Config.fromfile(root / "configs" / f"{name}.py")
        found.append(trained(cfg, root / name / f"epoch_{cfg.train_cfg.max_epochs}.pth"))
    return found[0], found[1], cfg


def gather(teacher: Any, student: Any, cfg: Config, loader: Any) -> Rois:
    """RoIs of all images of a loader, sampled as in the student's training."""
    from mmdet.structures.bbox import bbox2roi
    from mmengine.runner import Runner, set_random_seed

    head = student.roi_head
    head.bbox_sampler.num = ROIS
    set_random_seed(0)  # of flips and of the sampler
    parts: list[tuple[Tensor, ...]] = []
    for batch in Runner.build_dataloader(loader, seed=0):
        data = student.data_preprocessor(batch, training=False)
        samples, feats = data["data_samples"], student.extract_feat(data["inputs"])
        t_feats = teacher.extract_feat(data["inputs"])
        sampled = []
        for found, sample in zip(student.rpn_head.predict(feats, samples, rescale=False), samples):
            gt = sample.gt_instances
            gt.bboxes = getattr(gt.bboxes, "tensor", gt.bboxes)
            found.priors = found.pop("bboxes")
            assigned = head.bbox_assigner.assign(found, gt, None)
            sampled.append(head.bbox_sampler.sample(assigned, found, gt))
        rois = bbox2roi([each.priors for each in sampled])
        emb = embed(teacher.roi_head.bbox_head, pooled(teacher, t_feats, rois))
        targets = head.bbox_head.get_targets(sampled, head.train_cfg)
        logits = teacher.roi_head.bbox_head.fc_cls(emb)
        parts.append((pooled(student, feats, rois), emb, logits, rois, *targets))
    x, emb, logits, rois, *targets = (torch.cat(each) for each in zip(*parts))
    return Rois(x, emb, logits, rois, tuple(targets))


def gather_proposals(student: Any, cfg: Config) -> list[tuple[Any, Tensor, Tensor]]:
    """Of each image to judge, its sample, proposals and their features."""
    from mmdet.structures.bbox import bbox2roi
    from mmengine.runner import Runner

    found = []
    for batch in Runner.build_dataloader(cfg.val_dataloader, seed=0):
        data = student.data_preprocessor(batch, training=False)
        samples, feats = data["data_samples"], student.extract_feat(data["inputs"])
        proposals = student.rpn_head.predict(feats, samples, rescale=False)
        for i, (sample, each) in enumerate(zip(samples, proposals)):
            rois = bbox2roi([each.bboxes[:PROPOSALS]])
            found.append((sample, rois, pooled(student, [x[i : i + 1] for x in feats], rois)))
    return found


def pooled(detector: Any, feats: Any, rois: Tensor) -> Tensor:
    """Flat features ``[N, C * 7 * 7]`` of RoIs ``[N, 5]``."""
    extractor = detector.roi_head.bbox_roi_extractor
    x: Tensor = extractor(feats[: extractor.num_inputs], rois)
    return x.flatten(1)


def embed(head: Any, x: Tensor) -> Tensor:
    """Embeddings ``[N, D]`` of flat features."""
    for layer in head.shared_fcs:
        x = layer(x).relu()
    return x


def forms(root: Path, teacher: Any) -> dict[str, Loss | None]:
    """Forms of the ND loss, by name."""
    centers = ClassCenters.load(root / "centers" / "class_centers.safetensors")
    rows, size = centers.means.shape
    weight = teacher.roi_head.bbox_head.fc_cls.weight.detach()

    def made(kind: Any, **options: Any) -> Any:
        loss = kind(rows - 1, size, background=options.pop("background", True), **options)
        loss.set_centers(centers)
        return loss

    def plain(loss: Any) -> Loss:
        return lambda s, t, logits, labels: loss(s, t, labels)

    kept, seen = made(BlendedNDLoss, own=0.0, keep=True), made(BlendedNDLoss, own=0.0)
    return {
        "without": None,
        "published": plain(made(NDLoss)),
        "foreground": plain(made(NDLoss, background=False)),
        "direction": plain(made(CenterCosineLoss)),
        "own50": plain(made(BlendedNDLoss, own=0.5)),
        "own100": plain(made(BlendedNDLoss, own=1.0)),
        "sure": lambda s, t, logits, labels: seen(s, t, labels, t_logits=logits),
        "rows": lambda s, t, logits, labels: seen(s, t, labels, class_weight=weight),
        "kept": lambda s, t, logits, labels: kept(s, t, labels, class_weight=weight),
    }


def train(
    student: Any, learn: Rois, loss: Loss | None, epochs: int, weight: float, seed: int
) -> Any:
    """A box head that was trained from new weights."""
    from mmdet.registry import MODELS

    torch.manual_seed(seed)
    own = student.roi_head.bbox_head
    cfg = dict(
        type="Shared2FCBBoxHead",
        in_channels=own.in_channels,
        fc_out_channels=own.fc_out_channels,
        num_classes=own.num_classes,
        reg_class_agnostic=False,
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_stds=[0.1, 0.1, 0.2, 0.2]),
        loss_bbox=dict(type="L1Loss"),
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False),
    )
    head: Any = MODELS.build(cfg)
    head.init_weights()
    optimizer = torch.optim.AdamW(head.parameters(), lr=5e-4, weight_decay=0.05)
    steps = epochs * (len(learn.x) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        order = torch.randperm(len(learn.x))
        for chosen in order[: len(order) // BATCH * BATCH].split(BATCH):
            emb = embed(head, learn.x[chosen])
            targets = [each[chosen] for each in learn.targets]
            found = head.loss(head.fc_cls(emb), head.fc_reg(emb), learn.rois[chosen], *targets)
            total = found["loss_cls"] + found["loss_bbox"]
            if loss is not None:
                t_emb, logits = learn.t_emb[chosen], learn.t_logits[chosen]
                total = total + weight * loss(emb, t_emb, logits, targets[0])
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            schedule.step()
    return head


@torch.no_grad()
def evaluate(
    student: Any, head: Any, judge: list[tuple[Any, Tensor, Tensor]], cfg: Config
) -> list[float]:
    """COCO's metrics of a head on the images to judge."""
    from contextlib import redirect_stdout
    from io import StringIO

    from mmdet.registry import METRICS as KINDS

    with redirect_stdout(StringIO()):
        metric: Any = KINDS.build(cfg.val_evaluator)
        metric.dataset_meta = dict(classes=cfg.val_dataloader.dataset.metainfo.classes)
        for sample, rois, x in judge:
            emb = embed(head, x)
            (boxes,) = head.predict_by_feat(
                (rois,),
                (head.fc_cls(emb),),
                (head.fc_reg(emb),),
                [sample.metainfo],
                rcnn_test_cfg=student.roi_head.test_cfg,
                rescale=True,
            )
            one = dict(img_id=sample.img_id, ori_shape=sample.ori_shape, pred_instances=boxes)
            metric.process({}, [one])
        values = metric.evaluate(len(judge))
    return [values[f"coco/{name}"] for name in METRICS[:3]]


@torch.no_grad()
def on_foreground(head: Any, held_out: Rois) -> list[float]:
    """Share of foreground RoIs that get their class, and their boxes' mean IoU with the object."""
    from mmdet.structures.bbox import bbox_overlaps

    labels, _, deltas, _ = held_out.targets
    kept = (labels < head.num_classes).nonzero()[:, 0]
    emb, labels, boxes = embed(head, held_out.x[kept]), labels[kept], held_out.rois[kept, 1:]
    right = head.fc_cls(emb).argmax(dim=1) == labels
    own = head.fc_reg(emb).view(len(kept), -1, 4)[torch.arange(len(kept)), labels]
    found, truth = (head.bbox_coder.decode(boxes, each) for each in (own, deltas[kept]))
    return [float(right.float().mean()), float(bbox_overlaps(found, truth, is_aligned=True).mean())]


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Means over the seeds that both have, and what a form adds to none."""
    lines = ["| form | seeds | " + " | ".join(METRICS) + " | adds, " + " | adds, ".join(METRICS)]
    lines = [f"{lines[0]} |", "|---" * (2 + 2 * len(METRICS)) + "|"]
    without = found["without"]
    for name, seeds in found.items():
        common_seeds = [seed for seed in seeds if seed in without]
        means = [statistics.mean(seeds[s][i] for s in seeds) for i in range(len(METRICS))]
        adds = []
        for i in range(len(METRICS)):
            each = [seeds[s][i] - without[s][i] for s in common_seeds]
            error = statistics.stdev(each) / len(each) ** 0.5 if len(each) > 1 else 0
            adds.append(f"{statistics.mean(each):+.3f} ± {error:.3f}")
        figures = " | ".join([f"{x:.3f}" for x in means] + adds)
        lines.append(f"| {name} | {len(seeds)} | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    common.run(main)
