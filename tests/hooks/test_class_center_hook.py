"""The pre-pass: what it gathers, what it leaves as it was, and when it is spared."""

from __future__ import annotations

import copy
import json
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import TRANSFORMS, DefaultScope
from mmengine.runner import Runner
from small import digits_config, runner
from small_cls import CLS, build_classifier
from small_heads import config, detector, distiller, in_training
from torch import Tensor, nn

from kd_det import ClassCenterHook
from kd_det.centers import ClassCenters, ClassCentersError
from kd_det.hooks.prepass import PrePass
from kd_det.recipes import load_named

IMAGES, ROIS_PER_IMAGE = 24, 64
CLASSES, BACKGROUND, DIM = 10, 10, 128
FILE_NAME = "class_centers.safetensors"
SOURCE = "roi_head.bbox_head.fc_cls"


def make_runner(digits: Path, teacher_ckpt: Path, work_dir: Path, **options: object) -> Runner:
    cfg = digits_config("review_nd_kd", digits, work_dir)
    cfg.model.teacher_ckpt = str(teacher_ckpt)
    # Random numbers of all three kinds: the flip draws from numpy or python, the sampler of
    # RoIs from torch.
    cfg.train_dataloader.dataset.pipeline.insert(3, dict(type="RandomFlip", prob=0.5))
    cfg.merge_from_dict(options)
    return runner(cfg)


@pytest.fixture(scope="module")
def shared(digits, teacher_ckpt, tmp_path_factory) -> Runner:
    """One runner for all tests that do not train."""
    return make_runner(digits, teacher_ckpt, tmp_path_factory.mktemp("shared") / "work")


@pytest.fixture
def run(shared: Runner, caplog: pytest.LogCaptureFixture) -> Iterator[Runner]:
    """The shared runner without a file of centers; what it logs is in ``caplog``."""
    Path(shared.work_dir, FILE_NAME).unlink(missing_ok=True)
    nd_loss(shared).centers.zero_()
    nd_loss(shared).counts.zero_()
    shared.logger.addHandler(caplog.handler)
    yield shared
    shared.logger.removeHandler(caplog.handler)


@pytest.fixture
def unflipped(run: Runner) -> Iterator[Runner]:
    """The shared runner without the random flip, for comparison with a loop over the images."""
    transforms = run.train_dataloader.dataset.pipeline.transforms
    kept = list(transforms)
    transforms[:] = [t for t in kept if type(t).__name__ != "RandomFlip"]
    yield run
    transforms[:] = kept


def nd_loss(run: Runner) -> nn.Module:
    return run.model.distiller.distill_losses["loss_nd"]


def collect(run: Runner, out: Path | None = None, **options: object) -> ClassCenters:
    """What the pre-pass gathers for the one embedding of these recipes."""
    gathered = ClassCenterHook(**options).collect(run, out)
    assert list(gathered) == [SOURCE]
    return gathered[SOURCE]


def own_file(run: Runner) -> Path:
    return Path(run.work_dir) / FILE_NAME


@contextmanager
def forwards(module: nn.Module) -> Iterator[list[SimpleNamespace]]:
    """State at each forward pass of ``module``."""
    seen: list[SimpleNamespace] = []

    def look(module: nn.Module, _: object) -> None:
        seen.append(
            SimpleNamespace(
                training=any(m.training for m in module.modules()),
                grad=torch.is_grad_enabled(),
                random=random_state(),
            )
        )

    handle = module.register_forward_pre_hook(look)
    yield seen
    handle.remove()


def random_state() -> tuple[bytes, bytes, bytes]:
    """Of python, numpy and torch."""
    return (
        repr(random.getstate()).encode(),
        repr(np.random.get_state()[1:]).encode() + np.random.get_state()[1].tobytes(),
        torch.get_rng_state().numpy().tobytes(),
    )


def box_loop(run: Runner) -> tuple[Tensor, Tensor]:
    """Means and counts of the annotated boxes, one box after the other, without a recorder."""
    teacher = run.model.teacher
    sums = torch.zeros(CLASSES + 1, DIM, dtype=torch.float64)
    counts = torch.zeros(CLASSES + 1, dtype=torch.int64)
    for item in run.train_dataloader.dataset:
        data = run.model.data_preprocessor(pseudo_collate([item]), training=True)
        with torch.no_grad():
            feats = teacher.extract_feat(data["inputs"])
            objects = data["data_samples"][0].gt_instances
            for box, label in zip(objects.bboxes, objects.labels):
                x = teacher.roi_head.bbox_roi_extractor(
                    feats[:4], torch.cat([torch.zeros(1), box])[None]
                ).flatten(1)
                for layer in teacher.roi_head.bbox_head.shared_fcs:
                    x = layer(x).relu()
                sums[label] += x[0].double()
                counts[label] += 1
    return sums / counts.clamp(min=1)[:, None], counts


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-5, atol=1e-7)


# What is gathered


def test_annotated_boxes_equal_a_loop_over_boxes(unflipped):
    means, counts = box_loop(unflipped)
    centers = collect(unflipped, rois="gt")
    assert counts.sum() > IMAGES
    assert torch.equal(centers.counts, counts)
    assert centers.counts[BACKGROUND] == 0
    assert_close(centers.means, means)


def test_sampled_rois_give_background_a_mean_and_all_count(run):
    with forwards(run.model.teacher.roi_head.bbox_head.fc_cls) as passes:
        centers = collect(run)
    assert len(passes) == IMAGES // 4
    # 100 proposals and the annotated boxes for 64 places: every image fills them.
    assert int(centers.counts.sum()) == IMAGES * ROIS_PER_IMAGE
    assert centers.counts[BACKGROUND] > centers.counts[:BACKGROUND].sum()
    assert centers.means[BACKGROUND].norm() > 0
    seen = centers.counts > 0
    assert seen[:BACKGROUND].any()
    assert (centers.means[seen].norm(dim=1) > 0).all()


@pytest.mark.parametrize("rois", ["sampled", "gt"])
def test_teacher_runs_in_eval_mode_without_gradient_and_stays_as_it_was(run, rois):
    teacher = run.model.teacher
    before = copy.deepcopy(teacher.state_dict())
    teacher.train()  # the hook must not rely on somebody else having switched it
    try:
        with forwards(teacher.backbone) as passes:
            collect(run, rois=rois)
        assert all(m.training for m in teacher.modules())
    finally:
        teacher.eval()
    assert len(passes) == IMAGES // 4
    assert not any(p.training or p.grad for p in passes)
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert all(p.grad is None for p in run.model.parameters())


def test_means_do_not_depend_on_batches_and_workers(digits, teacher_ckpt, tmp_path):
    """Flips and the choice among an image's boxes are random, but the image's own."""
    centers = []
    for batch_size, workers in ((4, 0), (3, 2)):
        run = make_runner(
            digits,
            teacher_ckpt,
            tmp_path / f"{batch_size}",
            **{
                "train_dataloader.batch_size": batch_size,
                "train_dataloader.num_workers": workers,
                "train_dataloader.dataset.indices": 12,
            },
        )
        flip = TRANSFORMS.build(dict(type="mmdet.RandomFlip", prob=0.5))
        run.train_dataloader.dataset.pipeline.transforms.insert(3, flip)
        centers.append(collect(run))
    assert torch.equal(centers[0].counts, centers[1].counts)
    torch.testing.assert_close(centers[0].means, centers[1].means, rtol=1e-5, atol=1e-6)


def test_two_prepasses_agree_and_leave_the_rng_state(run, tmp_path):
    written = []
    for seed in (0, 123):
        file = tmp_path / f"{seed}.safetensors"
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            before = random_state()
            collect(run, file)
            assert random_state() == before
        written.append(ClassCenters.load(file))
    first, second = written
    assert torch.equal(first.means, second.means)
    assert torch.equal(first.counts, second.counts)
    assert first.metadata == second.metadata


def test_max_images_are_spread_over_the_data(run):
    centers = collect(run, max_images=5, rois="gt")
    dataset = run.train_dataloader.dataset
    chosen = (0, 6, 12, 17, 23)  # 5 of 24, first and last among them
    expected = sum(len(dataset.get_data_info(i)["instances"]) for i in chosen)
    assert int(centers.counts.sum()) == expected
    many = collect(run, max_images=10 * IMAGES)
    assert int(many.counts.sum()) == IMAGES * ROIS_PER_IMAGE


def test_max_images_of_a_repeated_dataset_in_groups_of_shape(digits, teacher_ckpt, tmp_path):
    cfg = digits_config("review_nd_kd", digits, tmp_path / "work")
    cfg.model.teacher_ckpt = str(teacher_ckpt)
    plain = cfg.train_dataloader.dataset
    repeated = dict(type="RepeatDataset", times=2, dataset=plain)
    for dataset, groups in ((repeated, None), (plain, dict(type="AspectRatioBatchSampler"))):
        cfg.train_dataloader.dataset = dataset
        cfg.train_dataloader.batch_sampler = groups
        centers = collect(runner(cfg), max_images=5)
        assert int(centers.counts.sum()) == 5 * ROIS_PER_IMAGE


# The file


def test_file_is_found_again_without_a_prepass(run, caplog):
    hook = ClassCenterHook()
    with forwards(run.model.teacher) as whole, forwards(run.model.teacher.backbone) as passes:
        hook.before_train(run)
        assert len(passes) == IMAGES // 4
        written = own_file(run).read_bytes()
        first = nd_loss(run).centers.clone()
        nd_loss(run).centers.zero_()
        hook.before_train(run)
        assert len(passes) == IMAGES // 4
    assert not whole  # neither its losses nor its predictions are asked for
    metadata = ClassCenters.load(own_file(run)).metadata
    assert json.loads(metadata["class_names"]) == [*"0123456789", "background"]
    embedding = "ModuleInputsRecorder roi_head.bbox_head.fc_cls[0], RoIs sampled"
    assert metadata["embedding"] == embedding
    assert metadata["dataset"] == f"CocoDataset, {IMAGES} of {IMAGES} images"
    assert len(metadata["teacher_sha256"]) == 64 and metadata["kd_det_version"]
    assert torch.equal(nd_loss(run).centers, first) and first.abs().sum() > 0
    assert own_file(run).read_bytes() == written
    assert f"of an earlier pre-pass read from {own_file(run)}" in caplog.text


def test_file_that_another_rank_lacks_is_gathered_by_all(run, monkeypatch):
    # Machines without a common work directory: ranks must not wait for each other.
    ClassCenterHook().before_train(run)
    module = sys.modules[ClassCenterHook.__module__]
    monkeypatch.setattr(module, "all_gather_object", lambda found: [found, False])
    with forwards(run.model.teacher.backbone) as passes:
        ClassCenterHook().before_train(run)
    assert len(passes) == IMAGES // 4


def with_metadata(**entries: str) -> Callable[[ClassCenters], ClassCenters]:
    def change(centers: ClassCenters) -> ClassCenters:
        centers.metadata.update(entries)
        return centers

    return change


def of_half_the_size(centers: ClassCenters) -> ClassCenters:
    other = ClassCenters(CLASSES + 1, DIM // 2, centers.metadata)
    other.update(centers.means[:, : DIM // 2], torch.arange(CLASSES + 1))
    return other


MISFITS = {
    "other teacher": (with_metadata(teacher_sha256="0" * 64), r"expected teacher_sha256 \w{64}, "),
    "other classes": (with_metadata(class_names='["cat"]'), "expected class_names "),
    "other RoIs": (
        with_metadata(embedding="ModuleInputsRecorder roi_head.bbox_head.fc_cls[0], RoIs gt"),
        "expected embedding ModuleInputsRecorder .* RoIs sampled",
    ),
    "other size": (of_half_the_size, "expected embedding size 128"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_named_file_that_does_not_fit_is_an_error(run, tmp_path, misfit):
    change, message = MISFITS[misfit]
    centers = ClassCenters(CLASSES + 1, DIM, PrePass(run, "sampled", None).origins[SOURCE])
    centers.update(torch.randn(CLASSES + 1, DIM), torch.arange(CLASSES + 1))
    change(centers).save(tmp_path / "named.safetensors")
    with forwards(run.model.teacher.backbone) as passes:
        with pytest.raises(ClassCentersError, match=f"{message}.*found "):
            ClassCenterHook(file=str(tmp_path / "named.safetensors")).before_train(run)
        assert not passes


def test_broken_file_is_gathered_anew(run, caplog):
    own_file(run).write_bytes(b"not safetensors")
    ClassCenterHook(max_images=4).before_train(run)
    assert "is not a file of class centers" in caplog.text
    assert nd_loss(run).has_centers


def test_classes_never_seen_are_named_and_left_out(run, caplog):
    ClassCenterHook(max_images=1).before_train(run)
    counts = nd_loss(run).counts
    unseen = [str(i) for i in range(CLASSES) if counts[i] == 0]
    assert unseen and counts[BACKGROUND] > 0
    assert f"{len(unseen)} of 11 classes were never seen" in caplog.text
    assert f": {', '.join(unseen)}\n" in caplog.text
    assert nd_loss(run).centers[counts == 0].abs().sum() == 0


# Errors


def test_model_without_a_loss_that_asks_for_centers_is_an_error(run):
    losses = run.model.distiller.distill_losses
    kept = losses.pop("loss_nd")
    try:
        with pytest.raises(ValueError, match=r"'loss_kd', 'loss_review'.*add kd_det.NDLoss"):
            ClassCenterHook().before_train(run)
    finally:
        losses["loss_nd"] = kept


# In a real run


def test_training_gathers_once_saves_and_resumes(digits, teacher_ckpt, tmp_path):
    work_dir = tmp_path / "work"
    few = {"train_dataloader.dataset.indices": 8, "train_cfg.val_interval": 99}
    first = make_runner(digits, teacher_ckpt, work_dir, **few)
    with forwards(first.model.teacher.rpn_head) as prepass:
        first.train()
    # The teacher proposes RoIs in the pre-pass alone.
    assert len(prepass) == 2
    centers = ClassCenters.load(own_file(first))
    assert int(centers.counts.sum()) == 8 * ROIS_PER_IMAGE
    assert torch.equal(nd_loss(first).centers, centers.means)
    assert torch.equal(nd_loss(first).counts, centers.counts)
    saved = torch.load(work_dir / "epoch_1.pth", weights_only=True, map_location="cpu")
    key = "distiller.distill_losses.loss_nd.centers"
    assert torch.equal(saved["state_dict"][key], centers.means)

    more = {**few, "train_cfg.max_epochs": 2, "resume": True}
    resumed = make_runner(digits, teacher_ckpt, work_dir, **more)
    with forwards(resumed.model.teacher.rpn_head) as prepass:
        resumed.train()
    assert not prepass
    assert (resumed.epoch, resumed.iter) == (2, 4)
    assert torch.equal(nd_loss(resumed).centers, centers.means)
    assert (work_dir / "epoch_2.pth").is_file()


# Cascades

PER_STAGE = [f"roi_head.bbox_head.{i}.fc_cls" for i in range(3)]


def pair_runner(
    digits: Path, work_dir: Path, teacher: str, answers: list, **options: object
) -> Runner:
    """A Runner of a cascade student, each of whose stages learns from one of ``answers``."""
    cfg = digits_config("review_nd_kd", digits, work_dir)
    torch.save(detector(teacher, seed=1).state_dict(), work_dir.parent / f"{teacher}.pth")
    cfg.model = dict(
        type="kd_det.RoITeacherDistill",
        architecture=config("cascade"),
        teacher=config(teacher),
        teacher_ckpt=str(work_dir.parent / f"{teacher}.pth"),
        distiller=distiller([0, 1, 2], answers),
        **options,
    )
    return runner(cfg)


@pytest.fixture(scope="module")
def cascades(digits, tmp_path_factory) -> Runner:
    work_dir = tmp_path_factory.mktemp("cascades") / "work"
    return pair_runner(digits, work_dir, "cascade", [0, 1, 2])


def centers_of_training(run: Runner) -> list[ClassCenters]:
    """Of each stage, from mmdet's own training step on one image after the other."""
    centers = [ClassCenters(CLASSES + 1, 16) for _ in PER_STAGE]
    for item in run.train_dataloader.dataset:
        data = run.model.data_preprocessor(pseudo_collate([item]), training=False)
        with torch.no_grad():
            found = in_training(run.model.teacher, data["inputs"], data["data_samples"])
        assert len(found) == len(centers)
        for own, (emb, labels) in zip(centers, found):
            own.update(emb, labels)
    return centers


def test_one_pass_gathers_the_centers_of_each_stage(cascades, tmp_path):
    hook = ClassCenterHook()
    with forwards(cascades.model.teacher.backbone) as passes:
        hook.before_train(cascades)
        assert len(passes) == IMAGES // 4
        hook.before_train(cascades)  # reads the files
        assert len(passes) == IMAGES // 4
    expected = centers_of_training(cascades)
    files = {s: Path(cascades.work_dir) / f"class_centers.{s}.safetensors" for s in PER_STAGE}
    for i, (source, file) in enumerate(files.items()):
        loss = cascades.model.distiller.distill_losses[f"loss_nd{i}"]
        assert torch.equal(loss.counts, expected[i].counts)
        assert_close(loss.centers, expected[i].means)
        embedding = ClassCenters.load(file).metadata["embedding"]
        assert embedding == f"ModuleInputsRecorder {source}[0], RoIs sampled, teacher_stage same"
    assert not torch.equal(expected[0].means, expected[2].means)

    kept = {source: file.rename(tmp_path / file.name) for source, file in files.items()}
    loss.centers.zero_()
    with forwards(cascades.model.teacher.backbone) as passes:
        named = ClassCenterHook(file={source: str(file) for source, file in kept.items()})
        named.before_train(cascades)
        assert_close(loss.centers, expected[2].means)
        kept[PER_STAGE[1]].unlink()
        with pytest.raises(FileNotFoundError, match=r"no file of class centers at .*head\.1\."):
            ClassCenterHook(file={source: str(file) for source, file in kept.items()})
        assert not passes
        # One of three files is no set.
        kept[PER_STAGE[0]].rename(files[PER_STAGE[0]])
        hook.before_train(cascades)
        assert passes and files[PER_STAGE[1]].is_file()


def test_files_that_do_not_fit_several_embeddings(cascades, tmp_path):
    file = tmp_path / "centers.safetensors"
    ClassCenters(CLASSES + 1, 16).save(file)
    every = (
        r"expected file=dict with one for each of \['roi_head.bbox_head.0.fc_cls', .*2.fc_cls'\]"
    )
    with pytest.raises(ValueError, match=rf"{every}, found '.*centers.safetensors'"):
        ClassCenterHook(file=str(file)).before_train(cascades)
    with pytest.raises(ValueError, match=rf"{every}, found those for \['neck'\]"):
        ClassCenterHook(file={"neck": str(file)}).before_train(cascades)


def test_losses_that_share_an_embedding_share_its_centers(digits, tmp_path):
    run = pair_runner(digits, tmp_path / "work", "cascade_mask", ["mean"] * 3, teacher_stage="mean")
    ClassCenterHook(max_images=8).before_train(run)
    file = own_file(run)
    assert list(file.parent.glob("class_centers*")) == [file]
    centers = ClassCenters.load(file)
    expected = "ModuleOutputsRecorder roi_head.stage_mean[0], RoIs sampled, teacher_stage mean"
    assert centers.metadata["embedding"] == expected
    for i in range(3):
        loss = run.model.distiller.distill_losses[f"loss_nd{i}"]
        assert torch.equal(loss.centers, centers.means) and loss.centers.abs().sum() > 0

    run.model.distiller.loss_forward_mappings["loss_nd1"]["t_emb"]["data_idx"] = 1
    with pytest.raises(ValueError, match=r"'loss_nd1' reads .*mean\[1\], and another .*\[0\]"):
        ClassCenterHook().before_train(run)


def test_samplers_that_score_their_candidates_add_nothing(digits, tmp_path):
    run = pair_runner(digits, tmp_path / "work", "faster", [None] * 3)
    teacher = run.model.teacher
    teacher.roi_head.train_cfg.sampler.update(type="OHEMSampler", num=8)
    with DefaultScope.overwrite_default_scope("mmdet"):
        teacher.roi_head.init_assigner_sampler()
    with forwards(teacher.roi_head.bbox_head.fc_cls) as passes:
        centers = collect(run, max_images=4)
    assert len(passes) > 1  # the sampler's, and one that counts
    assert int(centers.counts.sum()) == 4 * 8


# Classification


def test_classification_has_the_mean_of_each_class_and_no_background(tmp_path):
    """Under an algorithm of MMRazor's."""
    cfg = load_named(CLS / "digits" / "kd_nd.py")
    object.__setattr__(cfg, "_format_python_code", False)
    torch.save(build_classifier(cfg.model.teacher).state_dict(), tmp_path / "teacher.pth")
    cfg.model.update(
        type="mmrazor.SingleTeacherDistill",
        teacher_ckpt=str(tmp_path / "teacher.pth"),
        data_preprocessor=cfg.data_preprocessor,
    )
    cfg.model.distiller._scope_ = "mmrazor"
    cfg.train_dataloader.dataset.pipeline.pop(0)  # random crops
    cfg.custom_hooks = [dict(type="kd_det.ClassCenterHook")]
    cfg.train_cfg.update(max_epochs=1, val_interval=9)
    cfg.work_dir = str(tmp_path / "work")
    run = runner(cfg)
    teacher = run.model.teacher.eval()
    expected = ClassCenters(CLASSES, 64)
    for item in run.train_dataloader.dataset:
        data = run.model.data_preprocessor(pseudo_collate([item]), training=True)
        with torch.no_grad():
            embedding = teacher.extract_feat(data["inputs"])[-1]
        expected.update(embedding, data["data_samples"][0].gt_label)
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in teacher.modules()]
    run.train()

    centers = ClassCenters.load(own_file(run))
    assert centers.counts.tolist() == expected.counts.tolist() == [20] * CLASSES
    assert_close(centers.means, expected.means)
    assert torch.equal(nd_loss(run).centers, centers.means)
    assert json.loads(centers.metadata["class_names"]) == [*"0123456789"]
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in teacher.modules()] == hooks
    losses = run.message_hub.get_scalar("train/distill.loss_nd").data[0]
    assert len(losses) == 7 and (losses > 0).all() and np.isfinite(losses).all()


def test_pre_pass_over_fewer_images_is_not_taken_over(run, caplog):
    collect(run, max_images=4)
    ClassCenterHook(max_images=5).before_train(run)
    warnings = [r.getMessage() for r in caplog.records if "gathered again" in r.getMessage()]
    assert len(warnings) == 1
    assert "expected dataset CocoDataset, 5 of 24 images, found CocoDataset, 4 of" in warnings[0]


def test_dataset_of_another_class_count_is_refused(run):
    run.train_dataloader.dataset._metainfo["classes"] = ("apple", "pear")
    with pytest.raises(ValueError, match="expect 10 classes, but the training dataset has 2"):
        ClassCenterHook(max_images=4).before_train(run)


# Of the same teacher and data


def swap_labels(cfg: Config) -> None:
    """Correct the annotations in place: the same file, as many images and boxes."""
    file = Path(cfg.train_dataloader.dataset.data_root, cfg.train_dataloader.dataset.ann_file)
    content = json.loads(file.read_text())
    for annotation in content["annotations"]:
        annotation["category_id"] = annotation["category_id"] % CLASSES + 1
    file.write_text(json.dumps(content))


def change_normalisation(cfg: Config) -> None:
    for side in ("architecture", "teacher"):
        cfg.model[side].data_preprocessor.mean = [10.0, 20.0, 30.0]


def change_padding(cfg: Config) -> None:
    for side in ("architecture", "teacher"):
        cfg.model[side].data_preprocessor.pad_size_divisor = 64


def change_image_size(cfg: Config) -> None:
    cfg.train_dataloader.dataset.pipeline[2]["scale"] = (48, 48)


def change_sampling(cfg: Config) -> None:
    cfg.model.teacher.train_cfg.rcnn.sampler.num = 32


def change_weights(cfg: Config) -> None:
    state = torch.load(cfg.model.teacher_ckpt, weights_only=True)
    state["state_dict"]["roi_head.bbox_head.shared_fcs.1.bias"] += 1
    cfg.model.teacher_ckpt = str(Path(cfg.work_dir).with_name("other.pth"))
    torch.save(state, cfg.model.teacher_ckpt)


def change_precision(cfg: Config) -> None:
    cfg.optim_wrapper.update(type="AmpOptimWrapper", dtype="bfloat16")


CHANGES = {
    change_precision: "embedding",
    change_weights: "teacher_sha256",
    swap_labels: "dataset_sha256",
    change_normalisation: "input_sha256",
    change_padding: "input_sha256",
    change_image_size: "dataset_sha256",
    change_sampling: "input_sha256",
}


@pytest.fixture
def copied(digits: Path, teacher_ckpt: Path, tmp_path: Path) -> Config:
    """A config on a copy of the data."""
    cfg = digits_config("review_nd_kd", shutil.copytree(digits, tmp_path / "d"), tmp_path / "work")
    cfg.model.teacher_ckpt = str(teacher_ckpt)
    cfg.train_dataloader.dataset.indices = 4
    cfg.train_cfg.val_interval = 99
    return cfg


def warned(run: Runner, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What setting the centers of a run warns about."""
    caplog.clear()
    run.logger.addHandler(caplog.handler)
    ClassCenterHook().before_train(run)
    run.logger.removeHandler(caplog.handler)
    return [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]


@pytest.mark.parametrize("change", CHANGES)
def test_centers_of_something_else_are_not_reused(copied, caplog, change):
    ClassCenterHook().before_train(runner(copy.deepcopy(copied)))
    again = runner(copy.deepcopy(copied))
    with forwards(again.model.teacher.backbone) as passes:
        assert not any("gathered again" in text for text in warned(again, caplog)) and not passes
    change(copied)
    other = runner(copied)
    with forwards(other.model.teacher.backbone) as passes:
        (text,) = [text for text in warned(other, caplog) if "gathered again" in text]
        assert passes
    assert f"expected {CHANGES[change]} " in text and ", found " in text


@pytest.mark.parametrize("option", ["speed", "amp", "amp of a runner that does not train"])
def test_the_teacher_runs_in_the_precision_of_training(copied, option):
    if option == "speed":
        copied.model.speed = dict(teacher_dtype="bfloat16")
    else:
        change_precision(copied)
    run = runner(copied)
    if option == "amp":
        # MMEngine makes one on a GPU alone.
        run.optim_wrapper = AmpOptimWrapper.__new__(AmpOptimWrapper)
        run.optim_wrapper.cast_dtype = torch.bfloat16
    seen = []
    layer = run.model.teacher.roi_head.bbox_head.fc_cls
    layer.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    (centers,) = ClassCenterHook().collect(run).values()
    assert set(seen) == {torch.bfloat16}
    assert centers.metadata["embedding"].endswith(", in bfloat16")


def test_resumed_run_replaces_centers_of_something_else(copied, caplog):
    first = runner(copy.deepcopy(copied))
    first.train()
    old = nd_loss(first).centers.clone()
    copied.merge_from_dict({"train_cfg.max_epochs": 2, "resume": True})
    swap_labels(copied)
    resumed = runner(copied)
    resumed.logger.addHandler(caplog.handler)
    with forwards(resumed.model.teacher.rpn_head) as prepass:
        resumed.train()
    assert prepass and resumed.iter == 2
    assert "checkpoint's class centers are not those of this teacher and data" in caplog.text
    new = ClassCenters.load(own_file(resumed))
    assert torch.equal(nd_loss(resumed).centers, new.means) and not torch.equal(new.means, old)
    state = torch.load(Path(copied.work_dir) / "epoch_2.pth", weights_only=True)
    (origin,) = state["kd_det_class_centers"].values()
    assert origin.items() <= new.metadata.items()


def test_resumed_run_of_an_earlier_version_says_so(copied, caplog):
    runner(copy.deepcopy(copied)).train()
    file = Path(copied.work_dir) / "epoch_1.pth"
    state = torch.load(file, weights_only=True)
    del state["kd_det_class_centers"]
    torch.save(state, file)
    copied.merge_from_dict({"train_cfg.max_epochs": 2, "resume": True})
    resumed = runner(copied)
    resumed.logger.addHandler(caplog.handler)
    with forwards(resumed.model.teacher.rpn_head) as prepass:
        resumed.train()
    assert not prepass and "does not say what its class centers were gathered from" in caplog.text


def test_named_file_of_an_earlier_version_or_other_data_is_used(copied, caplog, tmp_path):
    file = tmp_path / "named.safetensors"
    first = runner(copy.deepcopy(copied))
    centers = collect(first, file)
    earlier = ClassCenters.load(file)
    for key in ("input_sha256", "dataset_sha256"):
        del earlier.metadata[key]
    earlier.save(tmp_path / "earlier.safetensors")
    ClassCenterHook(file=str(tmp_path / "earlier.safetensors")).before_train(first)
    assert torch.equal(nd_loss(first).centers, centers.means)
    swap_labels(copied)
    other = runner(copied)
    other.logger.addHandler(caplog.handler)
    ClassCenterHook(file=str(file)).before_train(other)
    assert "were gathered over other data" in caplog.text
    assert torch.equal(nd_loss(other).centers, centers.means)
    change_normalisation(copied)
    with pytest.raises(ClassCentersError, match=r"made for another run, expected input_sha256"):
        ClassCenterHook(file=str(file)).before_train(runner(copied))


# Runs of other kinds


@pytest.mark.parametrize(
    ("background", "rows", "expected"),
    [(True, 11, "11"), (False, 10, "10 or 11"), (False, 11, "10 or 11")],
)
def test_published_json_form_is_accepted(copied, tmp_path, background, rows, expected):
    copied.model.distiller.distill_losses.loss_nd.background = background
    means = torch.randn(rows, DIM, generator=torch.Generator().manual_seed(0))
    file = tmp_path / "centers.json"
    file.write_text(json.dumps({str(i): row.tolist() for i, row in enumerate(means)}))
    run = runner(copied)
    with forwards(run.model.teacher.backbone) as passes:
        ClassCenterHook(file=str(file)).before_train(run)
    assert not passes
    torch.testing.assert_close(nd_loss(run).centers, means[: CLASSES + background])
    file.write_text(json.dumps({"0": [1.0] * DIM}))
    with pytest.raises(ClassCentersError, match=f"expected classes {expected}, found 1"):
        ClassCenterHook(file=str(file)).before_train(run)


def test_runner_made_of_objects(copied, tmp_path):
    """Without configs, MMEngine's Runner has none to read the data's from."""
    run = runner(copied)
    expected = collect(run, rois="gt")
    loader = run.train_dataloader
    objects = Runner(
        model=run.model,
        work_dir=str(tmp_path / "objects"),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.01)),
        experiment_name="objects",
    )
    assert "train_dataloader" not in objects.cfg
    found = collect(objects, rois="gt")
    assert torch.equal(found.counts, expected.counts) and found.counts.sum() > 0
    assert_close(found.means, expected.means)


@pytest.mark.parametrize("is_main", [True, False])
def test_all_ranks_stop_for_embeddings_that_are_nan(copied, monkeypatch, is_main):
    run = runner(copied)
    with torch.no_grad():
        run.model.teacher.roi_head.bbox_head.shared_fcs[1].bias.fill_(float("nan"))
    monkeypatch.setattr(sys.modules[ClassCenterHook.__module__], "is_main_process", lambda: is_main)
    with pytest.raises(ClassCentersError, match="are not finite: the teacher gave embeddings"):
        collect(run, rois="gt")
