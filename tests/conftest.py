"""What tests of several rooms share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

# Runners would move models to a GPU, and numbers are compared with those of a CPU. What is for a
# GPU too takes `device`: CUDA_VISIBLE_DEVICES=0 pytest tests/losses tests/connectors tests/compat
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

GOLDEN = Path(__file__).parent / "golden"
# What the matrix runs in each of its environments: what depends on the versions of others.
CORE = (
    "algorithms",
    "commands/test_distill.py",
    "commands/test_export.py",
    "commands/test_resume.py",
    "commands/test_train.py",
    "compat",
    "connectors",
    "datasets",
    "export",
    "hooks/test_class_center_hook.py",
    "hooks/test_exact_resume_hook.py",
    "hooks/test_student_export_hook.py",
    "losses",
    "pairing/test_dry_run.py",
    "test_caches.py",
    "test_centers.py",
    "test_cls_runs.py",
    "test_config_files.py",
    "test_configs.py",
    "test_files.py",
    "test_optim.py",
    "test_recorders.py",
    "test_torch_alone.py",
)
DEVICES = ["cpu"]
if torch.cuda.is_available():
    DEVICES.append(pytest.param("cuda", marks=pytest.mark.gpu))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the core."""
    for item in items:
        path = item.path.relative_to(Path(__file__).parent).as_posix()
        if path.startswith(CORE):
            item.add_marker(pytest.mark.core)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, and a GPU where there is one."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def fresh_globals() -> Iterator[None]:
    """No test writes to the captured output or the folder of an earlier one, nor in its scope.

    Runners are told apart by config name and second: one that starts within the second of another
    test's takes over its logger, whose stream is closed by then, and its visualizer, which writes
    the scalars. The scope of the last one stays.
    """
    yield
    from mmengine.logging import MMLogger
    from mmengine.registry import DefaultScope
    from mmengine.visualization import Visualizer

    for visualizer in (Visualizer, *Visualizer.__subclasses__()):
        visualizer._instance_dict.clear()
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            handler.close()
    MMLogger._instance_dict.clear()
    DefaultScope._instance_dict.clear()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No download, by whatever way."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a config must be built without the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Tensor]]:
    """Reads a file of golden vectors by its stem; tests/golden/README.md explains the keys."""
    from safetensors.torch import load_file

    return lambda stem: load_file(GOLDEN / f"{stem}.safetensors")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A digits-coco set of 24 + 8 images of 64 pixels."""
    from kd_det.datasets import make_digits_coco

    root = tmp_path_factory.mktemp("data") / "digits-coco"
    make_digits_coco(root, image_size=64, train_images=24, val_images=8)
    return root


@pytest.fixture
def folder(digits: Path, tmp_path: Path) -> Path:
    """A copy of the digits-coco set, to be spoilt."""
    return Path(shutil.copytree(digits, tmp_path / "data"))


@pytest.fixture(scope="session")
def teacher_ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a randomly initialised digits teacher."""
    from small import save_random_teacher

    return save_random_teacher(tmp_path_factory.mktemp("teacher") / "teacher.pth")


@pytest.fixture(scope="session")
def trained_runs(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Work directories of a teacher, a plain and a distilled student."""
    from small import train_runs

    return train_runs(digits, tmp_path_factory.mktemp("runs"))
