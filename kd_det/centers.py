"""Class centers: the mean of a teacher's embeddings for each class.

Needs torch alone; reading and writing files also needs ``safetensors``.

File format (version 1): one ``.safetensors`` file with ``centers`` float32 ``[C, D]`` and
``counts`` int64 ``[C]``. Its metadata, all strings, describe the origin of the means:
``format_version``, ``class_names`` (a JSON list), ``embedding`` (where it was recorded),
``teacher_sha256``, ``dataset``, ``kd_det_version``, and ``checksum``, a SHA-256 of both tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from kd_det.errors import InvalidInputError, UserError
from kd_det.files import write_atomically

FORMAT_VERSION = "1"


class ClassCentersError(UserError, ValueError):
    """A file of class centers cannot be read, or does not fit the run."""


class ClassCenters:
    """Sums and counts of embeddings by class; sums are float64, so order does not matter.

    Args:
        num_classes: Number of classes C, background included where it has a mean.
        embed_dim: Size D of the embedding.
        metadata: Where the embeddings come from; written to the file as strings.
    """

    def __init__(
        self, num_classes: int, embed_dim: int, metadata: Mapping[str, str] | None = None
    ) -> None:
        if num_classes < 1 or embed_dim < 1:
            raise InvalidInputError(
                "ClassCenters needs num_classes >= 1 and embed_dim >= 1, got "
                f"num_classes={num_classes}, embed_dim={embed_dim}"
            )
        self.num_classes = num_classes
        self.embed_dim = embed_dim
        self.metadata = dict(metadata or {})
        self._sums = torch.zeros(num_classes, embed_dim, dtype=torch.float64)
        self._counts = torch.zeros(num_classes, dtype=torch.int64)

    def update(self, emb: Tensor, labels: Tensor) -> None:
        """Add embeddings ``[N, D]`` of classes ``labels`` ``[N]``, on any device.

        Raises:
            ValueError: If shapes do not fit or a label is outside ``[0, C)``.
        """
        if emb.dim() != 2 or emb.shape[1] != self.embed_dim or labels.shape != emb.shape[:1]:
            raise InvalidInputError(
                f"ClassCenters expected embeddings [N, {self.embed_dim}] and labels [N], got "
                f"{list(emb.shape)} and {list(labels.shape)}"
            )
        if len(labels) == 0:
            return
        low, high = (int(x) for x in torch.aminmax(labels))
        if low < 0 or high >= self.num_classes:
            raise InvalidInputError(
                f"ClassCenters of {self.num_classes} classes got labels from {low} to {high}"
            )
        # Some devices have no float64.
        device = torch.device("cpu") if emb.device.type == "mps" else emb.device
        self._move(device)
        emb, labels = emb.detach().to(device), labels.to(device)
        # Not index_add_, which on a CPU takes twice as long.
        rows = labels.unsqueeze(1).expand_as(emb)
        self._sums.scatter_add_(0, rows, emb.to(torch.float64))
        self._counts += torch.bincount(labels, minlength=self.num_classes)

    def merge(self, other: ClassCenters) -> None:
        """Add the sums and counts of ``other``.

        Raises:
            ValueError: If class count or embedding size differ.
        """
        if (other.num_classes, other.embed_dim) != (self.num_classes, self.embed_dim):
            raise InvalidInputError(
                f"cannot merge centers [{other.num_classes}, {other.embed_dim}] into centers "
                f"[{self.num_classes}, {self.embed_dim}]"
            )
        self._sums += other._sums.to(self._sums.device)
        self._counts += other._counts.to(self._counts.device)

    def all_reduce(self) -> None:
        """Add the sums and counts of all ranks; every rank ends with the same.

        Does nothing where no process group is initialised.
        """
        if not (dist.is_available() and dist.is_initialized()):
            return
        if dist.get_backend() == "nccl":
            # A rank without samples still has its sums on the CPU, which NCCL cannot reduce.
            self._move(torch.device("cuda", torch.cuda.current_device()))
        dist.all_reduce(self._sums)
        dist.all_reduce(self._counts)

    def _move(self, device: torch.device) -> None:
        self._sums = self._sums.to(device)
        self._counts = self._counts.to(device)

    @property
    def counts(self) -> Tensor:
        """Number of samples seen of each class, int64 ``[C]``."""
        return self._counts

    @property
    def means(self) -> Tensor:
        """Mean embedding of each class, float32 ``[C, D]``; zero for a class never seen."""
        return (self._sums / self._counts.clamp(min=1).unsqueeze(1)).float()

    def require_finite(self) -> None:
        """Raise :class:`ClassCentersError` if a mean is not finite; names the classes."""
        broken = (~self.means.isfinite().all(dim=1)).nonzero().flatten().tolist()
        if broken:
            raise ClassCentersError(
                f"the centers of classes {broken} are not finite: the teacher gave embeddings "
                "with inf or NaN"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file under a temporary name, then rename it; needs ``safetensors``.

        Raises:
            ClassCentersError: If a mean is not finite; names the classes.
        """
        from safetensors.torch import save

        self.require_finite()
        means = self.means.cpu()
        counts = self._counts.cpu()
        checksum = _checksum(means, counts)
        metadata = {**self.metadata, "format_version": FORMAT_VERSION, "checksum": checksum}
        data = save({"centers": means, "counts": counts}, metadata=metadata)
        write_atomically(Path(path), data)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        num_classes: int | None = None,
        embed_dim: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> ClassCenters:
        """Read a file written by :meth:`save`, or the published JSON form.

        The JSON form is an object from class index as text to a list of D numbers. It has no
        metadata: ``metadata`` is not compared, and every class has count 1.

        Args:
            path: The file, ``.safetensors`` or ``.json``.
            num_classes: Number of classes that the run needs; None accepts any.
            embed_dim: Embedding size that the run needs; None accepts any.
            metadata: Required entries of the file's metadata, for example
                ``teacher_sha256`` and ``class_names``.

        Raises:
            FileNotFoundError: If there is no such file.
            ClassCentersError: If the file is of another kind, damaged, or does not fit; says
                what was expected and what was found.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no file of class centers at {path}")
        read = _read_json if path.suffix == ".json" else _read_safetensors
        means, counts, found = read(path)
        for what, expected, got in (
            ("classes", num_classes, means.shape[0]),
            ("embedding size", embed_dim, means.shape[1]),
        ):
            if expected is not None and expected != got:
                raise ClassCentersError(f"{path}: expected {what} {expected}, found {got}")
        if not means.isfinite().all():
            raise ClassCentersError(f"{path}: expected finite centers, found inf or NaN")
        misfit = find_misfit(metadata or {}, found) if read is _read_safetensors else None
        if misfit is not None:
            raise ClassCentersError(f"{path}: made for another run, {misfit}")
        centers = cls(means.shape[0], means.shape[1], found)
        centers._counts = counts
        # Exact: a float32 mean times a count below 2**29 fits into float64.
        centers._sums = means.double() * counts.unsqueeze(1)
        return centers


def class_names_text(names: Sequence[str]) -> str:
    """Write class names as the metadata has them, as a JSON list."""
    return json.dumps(list(names), ensure_ascii=False)


def find_misfit(expected: Mapping[str, str], found: Mapping[str, str]) -> str | None:
    """Say which entry of ``found`` is another than expected; None if all are there."""
    for key, value in expected.items():
        if found.get(key) != value:
            return f"expected {key} {value}, found {found.get(key)}"
    return None


def _checksum(means: Tensor, counts: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in (means, counts):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read_safetensors(path: Path) -> tuple[Tensor, Tensor, dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            means, counts = file.get_tensor("centers"), file.get_tensor("counts")
    except (SafetensorError, OSError) as error:
        raise ClassCentersError(f"{path} is not a file of class centers: {error}") from error
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise ClassCentersError(
            f"{path}: expected format version {FORMAT_VERSION}, found {version}"
        )
    shapes_fit = means.dim() == 2 and counts.shape == means.shape[:1] and means.numel() > 0
    if not shapes_fit or means.dtype != torch.float32 or counts.dtype != torch.int64:
        raise ClassCentersError(
            f"{path}: expected centers float32 [C, D] and counts int64 [C], found "
            f"{means.dtype} {list(means.shape)} and {counts.dtype} {list(counts.shape)}"
        )
    checksum = _checksum(means, counts)
    expected = metadata.pop("checksum", checksum)  # absent from files of earlier versions
    if expected != checksum:
        raise ClassCentersError(
            f"{path} is damaged: expected checksum {expected}, found {checksum}"
        )
    if (counts < 0).any():
        raise ClassCentersError(f"{path}: expected counts >= 0, found {int(counts.min())}")
    return means, counts, metadata


def _read_json(path: Path) -> tuple[Tensor, Tensor, dict[str, str]]:
    try:
        rows = json.loads(path.read_bytes())  # in any encoding of Unicode
        means = torch.tensor([rows[str(i)] for i in range(len(rows))], dtype=torch.float32)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ClassCentersError(
            f"{path}: expected an object from class index ('0', '1', ...) to a list of D "
            f"numbers, found something else ({type(error).__name__}: {error})"
        ) from error
    if means.dim() != 2 or means.numel() == 0:
        raise ClassCentersError(
            f"{path}: expected a list of D numbers for each class, found shape {list(means.shape)}"
        )
    return means, torch.ones(len(means), dtype=torch.int64), {}
