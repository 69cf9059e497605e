"""The teacher's pyramid of images that come again, kept on disk.

An image that is augmented as it was before gives the teacher the same input, and its backbone and
neck the same maps. They are found by a digest of the input itself, so that no pipeline has to say
what it did: with a random flip alone each image has two entries, with colour jitter or mosaics
none comes again. Padding is part of the input: where images differ in size, an image has an entry
for each size that its batches are padded to.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from mmdet.models.detectors import DetectionTransformer, SingleStageDetector, TwoStageDetector
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kd_det.errors import InvalidInputError, UnsupportedTypeError

FOLDER = "work_dirs/teacher_cache"
# How many bytes a word of the digest has, by the type that it is read as.
WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
# In these, extract_feat is the backbone and then the neck, nothing else.
KNOWN = (SingleStageDetector, TwoStageDetector, DetectionTransformer)


@dataclass(frozen=True)
class CacheOptions:
    """Options of ``model.speed.cache_teacher``.

    Args:
        folder: Where maps are kept; each teacher and precision has a folder of its own in it, which
            later runs use too.
        budget_gb: Size (1e9 bytes) up to which it grows; then no more images are added.
        dtype: ``'bfloat16'`` keeps half of the bytes of float32; None keeps maps as they are, so
            that a run is the same as without a cache.

    Raises:
        ValueError: For a budget that is not above 0, or another ``dtype``.
    """

    folder: str = FOLDER
    budget_gb: float = 10.0
    dtype: str | None = None

    def __post_init__(self) -> None:
        if self.budget_gb <= 0 or self.dtype not in (None, "bfloat16"):
            raise InvalidInputError(
                "speed.cache_teacher: expected budget_gb above 0 and dtype None or 'bfloat16', "
                f"found {self.budget_gb} and {self.dtype!r}"
            )

    @classmethod
    def of(cls, options: bool | Mapping[str, Any]) -> CacheOptions:
        """Read a config, True for the defaults; raises ``ValueError`` for unknown options."""
        given = dict(options) if isinstance(options, Mapping) else {}
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(given) - set(known)):
            raise InvalidInputError(
                f"speed.cache_teacher: expected options out of {known}, found {unknown}"
            )
        return cls(**given)


@dataclass
class _Batch:
    """A batch on its way from backbone to neck: what was found, and the maps of the rest."""

    keys: list[str]
    found: dict[int, dict[str, Tensor]]
    missing: list[int]
    maps: Any


class PyramidCache:
    """Takes the place of a detector's backbone and neck where it knows what they would give.

    Attributes:
        hits: Images whose maps were read, since :meth:`take_share`.
        misses: Images whose maps were computed.
        folder: Of this teacher and precision; None before the first batch.

    Args:
        model: The detector.
        options: Where and how much.
        identity: All that maps depend on beside the input: the teacher's weights, options.

    Raises:
        TypeError: If the model is no detector of mmdet with a backbone and neck of its own.
    """

    def __init__(self, model: Any, options: CacheOptions, identity: Sequence[str]) -> None:
        own = getattr(type(model), "extract_feat", None)
        if not any(own is kind.extract_feat for kind in KNOWN):
            raise UnsupportedTypeError(
                "speed.cache_teacher keeps what backbone and neck of a detector of mmdet give; "
                f"{type(model).__name__} computes its features in another way, leave it out"
            )
        self.options = options
        self.hits = self.misses = 0
        self.folder: Path | None = None
        self._identity = [*identity, str(model.backbone), str(getattr(model, "neck", None))]
        self._active = False
        self._used = 0
        self._full = False
        self._backbone: Callable[..., Any] = model.backbone.forward
        self._neck: Callable[..., Any] | None = None
        # The methods, so that recorders, hooks on the modules, stay outside.
        model.backbone.forward = self._run_backbone
        if isinstance(getattr(model, "neck", None), nn.Module):
            self._neck = model.neck.forward
            model.neck.forward = self._run_neck

    @contextmanager
    def active(self) -> Iterator[None]:
        """Read and write within; outside, as in evaluations, the detector runs uncached."""
        self._active = True
        try:
            yield
        finally:
            self._active = False

    def take_share(self) -> float:
        """Return the share of images that were found since the last call."""
        share = self.hits / max(1, self.hits + self.misses)
        self.hits = self.misses = 0
        return share

    def _run_backbone(self, images: Tensor) -> Any:
        if not self._active:
            return self._backbone(images)
        if self.folder is None:
            self._open(images.device)
        last = not images.is_contiguous()  # then channels are
        self._format = torch.channels_last if last else torch.contiguous_format
        # On a CPU, a batch of one has kernels that round otherwise.
        alone = "-1" if len(images) == 1 else ""
        size = "x".join(map(str, images.shape[1:]))
        keys = [f"{key}-{size}{alone}" for key in digests(images)]
        found = {i: maps for i, key in enumerate(keys) if (maps := self._read(key)) is not None}
        missing = [i for i in range(len(keys)) if i not in found]
        self.hits += len(found)
        self.misses += len(missing)
        rows = missing
        if len(missing) == 1 < len(keys):
            rows = [*missing, (missing[0] + 1) % len(keys)]
        maps = None
        if rows:
            some = images[rows].contiguous(memory_format=self._format) if found else images
            maps = self._backbone(some)
        batch = _Batch(keys, found, missing, maps)
        return batch if self._neck else self._merge(batch)

    def _run_neck(self, maps: Any) -> Any:
        assert self._neck is not None
        if not isinstance(maps, _Batch):
            return self._neck(maps)
        if maps.maps is not None:
            maps.maps = self._neck(maps.maps)
        return self._merge(maps)

    def _merge(self, batch: _Batch) -> Any:
        """Put what was found and what was computed into one batch; write the latter."""
        computed = {} if batch.maps is None else _named(batch.maps)
        for row, i in enumerate(batch.missing):
            self._write(batch.keys[i], {name: maps[row] for name, maps in computed.items()})
        if not batch.found:
            return batch.maps
        first = next(iter(batch.found.values()))
        merged = {}
        for name, one in first.items():
            like = computed.get(name)
            dtype = self._dtype if self.options.dtype else one.dtype
            whole = torch.empty(
                (len(batch.keys), *one.shape), dtype=dtype, device=self._device,
                memory_format=self._format if one.dim() == 3 else torch.contiguous_format,
            )  # fmt: skip
            for i, maps in batch.found.items():
                whole[i].copy_(maps[name], non_blocking=True)
            for row, i in enumerate(batch.missing):
                assert like is not None
                whole[i].copy_(like[row])
            merged[name] = whole
        return _unnamed(merged)

    def _open(self, device: torch.device) -> None:
        """Choose the folder by all that maps depend on, and see how much it holds."""
        one = torch.ones(1, 1, device=device)
        self._dtype, self._device = (one @ one).dtype, device  # under autocast, its type
        identity = [*self._identity, str(self._dtype), device.type, torch.__version__]
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
        kept = self.options.dtype or str(self._dtype).replace("torch.", "")
        self.folder = Path(self.options.folder) / f"{digest}-{kept}"
        self.folder.mkdir(parents=True, exist_ok=True)
        entries = list(self.folder.glob("*/*.safetensors"))
        self._used = sum(entry.stat().st_size for entry in entries)
        print_log(
            f"The teacher's pyramid is cached in {self.folder}: {len(entries)} images, "
            f"{self._used / 1e9:.3g} of {self.options.budget_gb:g} GB",
            logger="current",
        )

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}.safetensors"

    def _read(self, key: str) -> dict[str, Tensor] | None:
        try:
            return load_file(self._path(key))  # mapped into memory
        except (FileNotFoundError, SafetensorError):  # the end of a process that was killed
            return None

    def _write(self, key: str, maps: dict[str, Tensor]) -> None:
        dtype = getattr(torch, self.options.dtype) if self.options.dtype else None
        kept = {name: x.to(device="cpu", dtype=dtype).contiguous() for name, x in maps.items()}
        size = sum(x.numel() * x.element_size() for x in kept.values())
        # Other processes write as much.
        if self._full or self._used + size * get_world_size() > self.options.budget_gb * 1e9:
            if not self._full:
                self._full = True
                print_log(
                    f"The teacher's cache is full: {self._used / 1e9:.3g} of "
                    f"{self.options.budget_gb:g} GB. Images that are not in it are computed; a "
                    "larger speed.cache_teacher.budget_gb would keep them, too",
                    logger="current",
                    level=30,
                )
            return
        self._used += size * get_world_size()
        path = self._path(key)
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        save_file(kept, temporary)
        os.replace(temporary, path)


def digests(images: Tensor) -> list[str]:
    """Compute a 128-bit digest of each image ``[N, C, H, W]`` on its device.

    Sums of the bits of all values by random factors, modulo 2^64, along one axis after the other:
    in no order of their own, so that any device computes the same. It is no cryptographic digest.
    """
    words = images.contiguous().view(WORDS[images.element_size()])
    found = []
    for image in words:  # one at a time, since words become four times as large
        for seed in (1, 2):
            left = image.to(torch.int64)
            for axis in (2, 1, 0):
                left = (left * _factors(left.shape[-1], 3 * seed + axis, left.device)).sum(-1)
            found.append(left)
    numbers = torch.stack(found).view(-1, 2).tolist()  # the only wait for the device
    return ["".join(f"{number & (2**64 - 1):016x}" for number in pair) for pair in numbers]


@lru_cache(maxsize=64)
def _factors(length: int, seed: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-(2**62), 2**62, (length,), generator=generator).to(device)


def _named(maps: Any) -> dict[str, Tensor]:
    """Name the maps of a pyramid, so that it can be put together again."""
    if isinstance(maps, Tensor):
        return {"map": maps}
    kind = "list" if isinstance(maps, list) else "tuple"
    return {f"{kind}{i:02}": x for i, x in enumerate(maps)}


def _unnamed(maps: dict[str, Tensor]) -> Any:
    ordered = [maps[name] for name in sorted(maps)]
    if "map" in maps:
        return ordered[0]
    return ordered if "list00" in maps else tuple(ordered)
