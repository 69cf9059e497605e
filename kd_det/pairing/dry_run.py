"""Build all that a training builds, and take one batch through it, without training."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import VISBACKENDS, DefaultScope
from mmengine.runner import Runner
from mmengine.utils import ManagerMixin
from mmengine.visualization import Visualizer

from kd_det.centers import ClassCenters
from kd_det.errors import InvalidInputError, add_note
from kd_det.pairing.cost import Timing, time_training
from kd_det.seeds import MODEL, Seeds, seeded


def dry_run(cfg: Config, weights: str | None = None, timed: int = 0) -> Timing | None:
    """Build model, data, optimizer, schedulers, hooks and evaluators by a Runner, as in training.

    All losses are computed for a batch of the training data, and the student's predictions for
    one of the validation data are handed to the evaluator. Nothing is trained and no file is left.
    RNG states are restored.

    Args:
        cfg: Config of a training, distilled or not; not changed.
        weights: File to which the weights of the model as it was built are written: those of a
            teacher that is not trained yet.
        timed: Number of iterations to time, with a learning rate of 0, after one that is not timed.

    Returns:
        What was timed; None without.

    Raises:
        kd_det.errors.UserError: If something does not fit or is missing, as in training.
        Exception: Whatever a part raises when it is built; a note says which part.
    """
    name = "kd_det_dry_run"
    with tempfile.TemporaryDirectory(prefix=f"{name}_") as folder, _no_traces(name):
        with _building("the model, hooks and visualizer"):
            runner = Runner.from_cfg(_small(cfg, folder, name))
        if weights is not None:
            torch.save(dict(state_dict=runner.model.state_dict()), weights)
        batch = _train_parts(runner)
        with torch.no_grad():
            _val_parts(runner)
        with _building("all losses for a batch of the training data"):
            _set_centers(runner.model)
            if timed:
                return time_training(runner, timed, cfg.train_dataloader.get("num_workers", 0))
            with torch.no_grad():
                data = runner.model.train().data_preprocessor(batch, training=True)
                runner.model(**data, mode="loss")
    return None


def _small(cfg: Config, folder: str, name: str) -> Config:
    """The config without worker processes, and without anything that writes elsewhere."""
    parts = copy.deepcopy(cfg.to_dict())
    for part in ("train", "val", "test"):
        loader = parts.get(f"{part}_dataloader")
        if loader:
            loader.update(num_workers=0, persistent_workers=False)
            for key in ("prefetch_factor", "timeout", "multiprocessing_context"):
                loader.pop(key, None)
    visualizer = parts.get("visualizer") or {}
    for backend in visualizer.pop("vis_backends", None) or ():
        # Some open a run on a server as soon as they are built.
        with DefaultScope.overwrite_default_scope(parts.get("default_scope")):
            if isinstance(backend["type"], str) and VISBACKENDS.get(backend["type"]) is None:
                raise InvalidInputError(
                    f"visualizer.vis_backends names {backend['type']!r}, which is not registered"
                )
    if visualizer:
        parts["visualizer"] = dict(visualizer, name=name)
    parts.update(work_dir=folder, experiment_name=name, launcher="none", log_level="WARNING")
    return Config(parts, format_python_code=False)


def _train_parts(runner: Any) -> Any:
    """In the order of :meth:`mmengine.runner.Runner.train`; returns a batch."""
    with _building("the training data and loop (train_dataloader, train_cfg)"):
        runner._train_loop = runner.build_train_loop(runner._train_loop)
        loader = runner.train_dataloader
        require_batches(loader, "train")
        batch = next(iter(loader))
    with _building("the optimizer (optim_wrapper)"):
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
    with _building("the schedulers (param_scheduler)"):
        if runner.param_schedulers is not None:
            runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    with _building("the hooks (default_hooks, custom_hooks)"):
        runner.call_hook("before_run")
    return batch


def _set_centers(model: Any) -> None:
    """Set class centers of ones where a training gathers them in its pre-pass."""
    distiller = getattr(model, "distiller", None)
    for loss in distiller.distill_losses.values() if distiller is not None else ():
        if hasattr(loss, "set_centers"):
            rows = len(loss.counts)
            centers = ClassCenters(rows, loss.embed_dim)
            centers.update(torch.ones(rows, loss.embed_dim), torch.arange(rows))
            loss.set_centers(centers)


def _val_parts(runner: Any) -> None:
    """The student on a batch of validation data, into the evaluator; nothing is evaluated."""
    for part in ("val", "test"):
        loop = getattr(runner, f"_{part}_loop")
        if loop is None:
            continue
        names = ", ".join(f"{part}_{what}" for what in ("dataloader", "evaluator", "cfg"))
        with _building(f"{names}"):
            loop = getattr(runner, f"build_{part}_loop")(loop)
            require_batches(loop.dataloader, part)
    if runner._val_loop is not None:
        loop = runner.val_loop
        with _building("the student's predictions for a batch of the validation data"):
            batch = next(iter(loop.dataloader))
            runner.model.eval()
            loop.evaluator.process(data_samples=runner.model.val_step(batch), data_batch=batch)


def require_batches(loader: Any, part: str) -> None:
    """Raise ``InvalidInputError`` for a loader without a batch, over which a loop ends at once."""
    if not len(loader):
        raise InvalidInputError(
            f"{part}_dataloader has no batch: {len(loader.dataset)} images in batches of "
            f"{loader.batch_sampler.batch_size}. With drop_last, an incomplete batch is left out; "
            "filter_cfg leaves out images without objects"
        )


@contextmanager
def _building(what: str) -> Iterator[None]:
    """Add to an error what was built."""
    try:
        yield
    except Exception as error:
        add_note(error, f"the dry run was at {what}")
        raise


@contextmanager
def _no_traces(name: str) -> Iterator[None]:
    """Restore RNG states and the instances that MMEngine keeps of a Runner in this process."""
    before = {kind: dict(kind._instance_dict) for kind in _managers()}
    with seeded(Seeds(MODEL)):
        try:
            yield
        finally:
            for logger in (x for key, x in MMLogger._instance_dict.items() if name in key):
                for handler in list(logger.handlers):
                    handler.close()
            for kind in _managers():
                kind._instance_dict.clear()
                kind._instance_dict.update(before.get(kind, {}))


def _managers() -> Iterator[type[ManagerMixin]]:
    """What MMEngine keeps instances of by name; each class has its own."""
    kinds: list[type[ManagerMixin]] = [MMLogger, MessageHub, Visualizer, DefaultScope]
    for kind in kinds:
        kinds += kind.__subclasses__()
        yield kind
