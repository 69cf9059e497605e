"""Let images be padded so that both sides of a pair can take them."""

from __future__ import annotations

import math

import torch

from kd_det.pairing.detectors import SIDE, SMALL_SIDE, Detector, device_of, run


def unify_padding(student: Detector, teacher: Detector) -> list[str]:
    """Let images be padded so that both get maps of the same size, in place.

    Returns:
        What was decided, in sentences.
    """
    divisors = [
        (side.model_cfg.get("data_preprocessor") or {}).get("pad_size_divisor", 1)
        for side in (student, teacher)
    ]
    needed = needed_multiple(teacher)
    if needed_multiple(student) % needed:  # else the student's recipe sees to it
        divisors[1] = math.lcm(divisors[1], needed)
    common = math.lcm(*divisors)
    if common == divisors[0] == divisors[1]:
        return []
    for side in (student, teacher):
        # One without a preprocessor pads nothing, and its images come from the other's.
        if side.model_cfg.get("data_preprocessor"):
            side.model_cfg["data_preprocessor"]["pad_size_divisor"] = common
    return [f"images are padded to multiples of {common}, of the student's {divisors[0]} and the "
            f"teacher's {divisors[1]}"]  # fmt: skip


@torch.no_grad()
def needed_multiple(detector: Detector) -> int:
    """The number that the sides of images have to be multiples of; 1 if any size will do.

    A neck that joins maps after doubling their size, as RTMDet's and YOLOX's, asks for one; their
    own recipes pad or resize accordingly, and others do not.
    """
    side = SIDE if device_of(detector.model).type == "meta" else SMALL_SIDE
    strides = sorted({level.stride for level in detector.levels})
    for stride in strides:
        # The map of this stride has an odd side, so that it is not double the next one's.
        try:
            run(detector.model, (side // stride - 1) * stride)
        except RuntimeError:
            continue
        return 1 if stride == strides[0] else stride
    return 1  # one of fixed size, or that the meta device cannot run
