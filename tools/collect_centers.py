"""Gather a teacher's class centers into a file, without training."""

import kd_det  # noqa: F401  (patches the stack before anything else is imported)
from kd_det import config_files
from kd_det.commands import common
from kd_det.errors import InvalidInputError


def main() -> None:
    parser = common.parser(
        "Gather the teacher's class centers over the training data of a distillation config.",
        "python tools/collect_centers.py configs/digits/review_nd_kd.py --out centers.safetensors",
    )
    parser.add_argument("--out", help="file to write (default: in the work directory)")
    parser.add_argument("--max-images", type=int, help="use that many images (default: all)")
    parser.add_argument(
        "--rois",
        choices=["sampled", "gt"],
        default="sampled",
        help="RoIs of the teacher's own proposals, or the annotated boxes (no background)",
    )
    args = parser.parse_args()
    cfg = common.load_config(args)
    if not config_files.is_distillation(cfg):
        raise InvalidInputError(f"{args.config} has no model.teacher; give a distillation config")
    config_files.check_files(cfg, ("train", "teacher"))
    for name in ("val", "test"):
        cfg.update({f"{name}_dataloader": None, f"{name}_cfg": None, f"{name}_evaluator": None})

    from mmengine.runner import Runner

    from kd_det.hooks import ClassCenterHook

    cfg.custom_hooks = []
    runner = Runner.from_cfg(cfg)
    hook = ClassCenterHook(max_images=args.max_images, rois=args.rois)
    hook.collect(runner, args.out)


if __name__ == "__main__":
    common.run(main)
