"""Let a new checkpoint be whole on disk before the one that it replaces is removed.

mmengine 0.10.7 removes the oldest checkpoint, writes the new one under its final name, and then
writes `last_checkpoint` in place. A crash, a kill or a full disk in between leaves half a file, or
a `last_checkpoint` that is empty or points at what was removed: `--resume` then fails, or begins
from nothing.
"""

from __future__ import annotations

import io
from pathlib import Path
from types import TracebackType
from typing import Any

import wrapt

from kd_det.files import write_atomically


def patch() -> None:
    """Write through a temporary name, and remove last."""
    wrapt.register_post_import_hook(_patch_backend, "mmengine.fileio.backends.local_backend")
    wrapt.register_post_import_hook(_patch_hook, "mmengine.hooks.checkpoint_hook")


def _patch_backend(module: Any) -> None:
    def put(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> None:
        def write(obj: Any, filepath: Any, encoding: str = "utf-8") -> None:
            write_atomically(
                Path(filepath), obj if isinstance(obj, bytes) else obj.encode(encoding)
            )

        write(*args, **kwargs)

    for name in ("put", "put_text"):
        wrapt.wrap_function_wrapper(module, f"LocalBackend.{name}", put)


def _patch_hook(module: Any) -> None:
    module.open = _AtomicText  # it opens `last_checkpoint` alone
    for name in ("_save_checkpoint_with_step", "_save_best_checkpoint"):
        wrapt.wrap_function_wrapper(module, f"CheckpointHook.{name}", _remove_last)
    wrapt.wrap_function_wrapper(module, "CheckpointHook.before_train", _clean_up)


class _AtomicText(io.StringIO):
    """A text file that is there when it is closed without an error."""

    def __init__(self, path: str, mode: str) -> None:
        if mode != "w":
            raise ValueError(f"expected mode 'w', found {mode!r}")
        super().__init__()
        self._path = Path(path)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            write_atomically(self._path, self.getvalue().encode())
        super().__exit__(kind, error, traceback)


class _Deferring(wrapt.ObjectProxy):
    """A file backend that keeps in mind what it is to remove."""

    def __init__(self, backend: Any) -> None:
        super().__init__(backend)
        self._self_removals: list[tuple[Any, Any]] = []

    def remove(self, path: Any) -> None:
        self._self_removals.append((self.__wrapped__.remove, path))

    def rmtree(self, path: Any) -> None:
        self._self_removals.append((self.__wrapped__.rmtree, path))


def _remove_last(wrapped: Any, hook: Any, args: Any, kwargs: Any) -> None:
    backend = getattr(hook, "file_backend", None)
    # There is none before training; a best checkpoint writes the last one again.
    if backend is None or isinstance(backend, _Deferring):
        wrapped(*args, **kwargs)
        return
    deferring = hook.file_backend = _Deferring(backend)
    try:
        wrapped(*args, **kwargs)
    finally:
        hook.file_backend = backend
    best = getattr(hook, "best_ckpt_path_dict", {})
    kept = {hook.last_ckpt, getattr(hook, "best_ckpt_path", None), *best.values()}
    for remove, path in deferring._self_removals:
        if path not in kept:
            remove(path)


def _clean_up(wrapped: Any, hook: Any, args: Any, kwargs: Any) -> None:
    """Remove what a kill left under temporary names."""
    wrapped(*args, **kwargs)
    from mmengine.dist import is_main_process

    if is_main_process() and Path(hook.out_dir).is_dir():
        for file in Path(hook.out_dir).glob(".*.pth.????????"):
            file.unlink(missing_ok=True)
