"""Nothing grows while training, nothing is left behind, and two models do not meet."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch
from small import runner
from small_cls import CLS, batch, build_classifier, build_distiller, give_random_centers, losses_of

from kd_det.recipes import load_named


@pytest.fixture
def soak(benchmark):
    return benchmark("soak")


def test_memory_files_and_records_stay(soak, tmp_path: Path):
    watch = soak.soak(140, tmp_path, 14)
    _, memory, files, records = zip(*watch.seen)
    assert max(records) == 0
    assert files[-1] <= files[len(files) // 2]
    # A feature map more for each step would be some MiB by now.
    assert memory[-1] - memory[len(memory) // 2] < 20
    assert "MiB per 1000 iterations; open files" in soak.report(watch)


def test_runners_leave_no_model_behind(tmp_path: Path):
    cfg = load_named(CLS / "digits" / "kd_nd.py")
    object.__setattr__(cfg, "_format_python_code", False)
    torch.save(build_classifier(cfg.model.teacher).state_dict(), tmp_path / "teacher.pth")
    cfg.model.teacher_ckpt = str(tmp_path / "teacher.pth")
    cfg.work_dir = str(tmp_path / "work")
    models = []
    for _ in range(5):
        run = runner(cfg)
        models.append(weakref.ref(run.model))
    del run
    gc.collect()
    alive = [model for model in models if model() is not None]
    assert len(alive) <= 1  # MMEngine's visualizer keeps the last


def test_two_models_do_not_disturb_each_other():
    def built():
        model = build_distiller(load_named(CLS / "digits" / "review_nd.py"))
        give_random_centers(model)
        return model

    data = [batch(10, 8), batch(10, 8)]

    def losses(model):
        torch.manual_seed(1)  # a connector has dropout
        return losses_of(model, data[0])

    alone = losses(built())
    first, second = built(), build_distiller(load_named(CLS / "digits" / "kd.py"))
    losses_of(second, data[1])
    together = losses(first)
    losses_of(second, data[1])
    assert all(torch.equal(alone[key], together[key]) for key in alone)
