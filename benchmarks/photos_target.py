"""What a student would lose that reached the ND loss's minimum: the teacher's boxes from there.

The teacher's embeddings of foreground RoIs are moved to where the loss is least, at their own norm,
and its own box head reads class and box from them. Nothing is trained.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor

from kd_det.algorithms.checkpoint import load_weights
from kd_det.centers import ClassCenters
from kd_det.commands import common
from kd_det.losses._rows import unit_rows

PROG = "python benchmarks/photos_target.py"
OWN = (0.0, 0.25, 0.5, 0.75, 1.0)


def main() -> None:
    args = parse_args()
    # After compat, which makes mmcv's operators available.
    from mmdet.structures.bbox import bbox_overlaps
    from mmdet.utils import register_all_modules

    register_all_modules()
    cfg = Config.fromfile(args.root / "configs" / "teacher.py")
    teacher = trained(cfg, args.root / "teacher" / f"epoch_{cfg.train_cfg.max_epochs}.pth")
    centers = ClassCenters.load(args.root / "centers" / "class_centers.safetensors").means.float()
    loader = Runner.build_dataloader(cfg.val_dataloader, seed=0)
    with torch.no_grad():
        found = [foreground(teacher, batch) for batch in loader]
    emb, boxes, truth, labels = (torch.cat(parts) for parts in zip(*found))
    print(f"{len(emb)} foreground RoIs of {args.root.name}, mean IoU of RoI and object "
          f"{bbox_overlaps(boxes, truth, is_aligned=True).mean():.3f}\n")  # fmt: skip
    print("| embedding | class right | mean IoU of the box | IoU > 0.75 |\n|---|---|---|---|")
    for name, moved in targets(teacher, emb, centers[labels]).items():
        print(row(teacher, name, moved, boxes, truth, labels))


def parse_args() -> argparse.Namespace:
    parser = common.make_parser(PROG, __doc__, "%(prog)s work_dirs/photos_cards_192")
    parser.add_argument("root", type=Path, help="folder of the runs of photos.py")
    return parser.parse_args()


def trained(cfg: Config, checkpoint: Path) -> Any:
    """The teacher with its weights."""
    from mmdet.registry import MODELS

    teacher = MODELS.build(dict(cfg.model, backbone=dict(cfg.model.backbone, init_cfg=None)))
    load_weights(teacher, str(checkpoint), "teacher")
    return teacher.eval()


def foreground(teacher: Any, batch: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Embeddings, boxes, objects and labels of the teacher's own foreground proposals."""
    from mmdet.structures.bbox import bbox2roi

    data = teacher.data_preprocessor(batch, training=False)
    samples, head = data["data_samples"], teacher.roi_head
    feats = teacher.extract_feat(data["inputs"])
    proposals = teacher.rpn_head.predict(feats, samples, rescale=False)
    sampled = []
    for found, sample in zip(proposals, samples):
        gt = sample.gt_instances
        gt.bboxes = getattr(gt.bboxes, "tensor", gt.bboxes)  # as the images, resized
        found.priors = found.pop("bboxes")
        assigned = head.bbox_assigner.assign(found, gt, None)
        kept = assigned.gt_inds > 0
        index = assigned.gt_inds[kept] - 1
        sampled.append((found.priors[kept], gt.bboxes[index], gt.labels[index]))
    boxes, truth, labels = zip(*sampled)
    x = head.bbox_roi_extractor(feats[: head.bbox_roi_extractor.num_inputs], bbox2roi(boxes))
    x = x.flatten(1)
    for layer in head.bbox_head.shared_fcs:
        x = layer(x).relu()
    return x, torch.cat(boxes), torch.cat(truth), torch.cat(labels)


def targets(teacher: Any, emb: Tensor, means: Tensor) -> dict[str, Tensor]:
    """Embeddings at the least of each form of the loss, by its name."""
    norm, own, mean = emb.norm(dim=1, keepdim=True), unit_rows(emb), unit_rows(means)
    found = {
        f"{share:.0%} of its own": norm * unit_rows((1 - share) * mean + share * own)
        for share in OWN
    }
    basis = torch.linalg.qr(teacher.roi_head.bbox_head.fc_cls.weight.T).Q
    seen = emb @ basis
    moved = seen.norm(dim=1, keepdim=True) * unit_rows(means @ basis)
    found["class mean in what the class layer sees"] = emb + (moved - seen) @ basis.T
    return found


def row(teacher: Any, name: str, emb: Tensor, boxes: Tensor, truth: Tensor, labels: Tensor) -> str:
    """A row of the table."""
    from mmdet.structures.bbox import bbox_overlaps

    head = teacher.roi_head.bbox_head
    right = (head.fc_cls(emb).argmax(dim=1) == labels).float().mean()
    deltas = head.fc_reg(emb).view(len(emb), -1, 4)[torch.arange(len(emb)), labels]
    overlap = bbox_overlaps(head.bbox_coder.decode(boxes, deltas), truth, is_aligned=True)
    high = (overlap > 0.75).float().mean()
    return f"| {name} | {right:.3f} | {overlap.mean():.3f} | {high:.3f} |"


if __name__ == "__main__":
    common.run(main)
