"""The student of each new best and of the last checkpoint, for MMDetection alone."""

from __future__ import annotations

from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from kd_det.export.plain_config import PlainConfig, plain_config
from kd_det.export.student import export_student
from kd_det.hooks._distillation import require_alone
from kd_det.registry import HOOKS


@HOOKS.register_module()
class StudentExportHook(Hook):
    """Exports the student from checkpoints as they are written (:mod:`kd_det.export.student`).

    ``student/`` in the work directory is of the last checkpoint, at the end of training;
    ``student_best/`` is of what ``CheckpointHook`` holds for the best, after each evaluation that
    made a new one (with several ``save_best`` metrics, ``student_best_<metric>/``). A model that is
    trained without a teacher is exported as it is. Checkpoints are written before, so an export
    that fails costs none: it is logged as an error and training goes on.

    Args:
        best: Whether to export each new best.
        last: Whether to export at the end of training.
        name: What the folders are called instead of ``student``.

    Raises:
        ValueError: Before training, if the run has no config to make one of the student from.
    """

    priority = "LOWEST"  # CheckpointHook, which is VERY_LOW, has written what is read here

    def __init__(self, best: bool = True, last: bool = True, name: str = "student") -> None:
        self.best = best
        self.last = last
        self.name = name
        self._plain: PlainConfig | None = None
        self._exported: dict[Path, str] = {}

    def before_train(self, runner: Runner) -> None:
        """Make the student's config, and say what is not in it."""
        require_alone(runner, self)
        if not is_main_process():
            return
        self._plain = plain_config(runner.cfg)
        for part in self._plain.left_out:
            runner.logger.info(f"The exported student's config will be without {part}")
        if self._plain.requires:
            runner.logger.warning(
                f"The student has modules of {', '.join(self._plain.requires)}, and its export "
                "needs that package; the rest of its config is plain"
            )

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Export the checkpoint that was the best one just now, if it is new."""
        if self.best:
            self._export_best(runner)

    def after_train(self, runner: Runner) -> None:
        """Export the last checkpoint, and the best one if a kill came between it and its export."""
        if self.best:
            self._export_best(runner)
        if self.last and "last_ckpt" in runner.message_hub.runtime_info:
            self._export(runner, runner.message_hub.get_info("last_ckpt"), self.name)

    def _export_best(self, runner: Runner) -> None:
        for name, checkpoint in runner.message_hub.runtime_info.items():
            if name.startswith("best_ckpt"):
                metric = name.removeprefix("best_ckpt").replace("/", "_")
                self._export(runner, checkpoint, f"{self.name}_best{metric}")

    def _export(self, runner: Runner, checkpoint: str, name: str) -> None:
        folder = Path(runner.work_dir) / name
        if self._plain is None or self._exported.get(folder) == checkpoint:
            return
        runner.logger.info(f"Exporting the student of {Path(checkpoint).name} to {folder}")
        try:
            export_student(Path(checkpoint), runner.cfg, self._plain, folder, Path(runner.work_dir))
        except Exception as error:  # whatever it is, it must not end a training
            runner.logger.error(
                f"The student was not exported: {error!r}. Its checkpoint {checkpoint} is there; "
                f"python tools/export_student.py {runner.work_dir} exports from it",
                exc_info=True,
            )
        else:
            self._exported[folder] = checkpoint
