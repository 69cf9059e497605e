"""Read the CIFAR-100 teachers that mdistiller publishes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from kd_det.errors import InvalidInputError

# mdistiller's names, and those of mmpretrain's ImageClassifier with the backbones of this package
# (ResNet-50: mmpretrain's ResNet_CIFAR). What is not named here keeps its name.
RENAMES = (
    (r"^(fc|linear)\.", "head.fc."),
    (r"^(?=(conv1|bn1|layer[1-4]|block[1-3])\.)", "backbone."),
    (r"\.shortcut\.", ".downsample."),
)


def from_mdistiller(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of an mdistiller model to those of an mmpretrain ``ImageClassifier``.

    Args:
        state: State dict of ``resnet*``, ``wrn_*`` or ``ResNet50``, ``"model"`` of their files.

    Raises:
        ValueError: For a state dict of another model; names its unknown entries.
    """
    renamed = {}
    for key, value in state.items():
        name = key.removeprefix("module.")
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    unknown = [name for name in renamed if not name.startswith(("backbone.", "head.fc."))]
    if unknown or not renamed:
        raise InvalidInputError(
            "expected the weights of mdistiller's resnet*, wrn_* or ResNet50 for CIFAR, found "
            f"{f'the entries {unknown[:5]}' if unknown else 'no entries'}"
        )
    return renamed
