"""kd-det train trains, resumes, and refuses in one sentence what cannot go well."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from small import ROOT
from torch.nn import functional as F

from kd_det.algorithms import WiringError
from kd_det.centers import ClassCenters
from kd_det.commands import common
from kd_det.commands.train import make_parser, prepare
from kd_det.errors import add_note
from kd_det.report.scalars import read_scalars


def test_trains_the_recipe_and_says_where_the_results_lie(trained):
    (log,) = trained.glob("*/*.log")
    output = log.read_text()
    assert "Epoch(train) [1][2/2]" in output and "coco/bbox_mAP:" in output
    assert f"Checkpoints and logs lie in {trained}" in output
    assert int(ClassCenters.load(trained / "class_centers.safetensors").counts.sum()) == 8 * 64
    saved = torch.load(trained / "epoch_1.pth", map_location="cpu", weights_only=True)
    parts = {key.split(".")[0] for key in saved["state_dict"]}
    assert parts == {"architecture", "distiller"}


def test_resume_goes_on_at_the_next_epoch(trained, tool, recipe, tmp_path, capfd):
    shutil.copytree(trained, tmp_path / "work")
    options = ["--resume", "--cfg-options", "train_cfg.max_epochs=2"]
    tool("train", recipe, "--work-dir", tmp_path / "work", *options)
    output = "".join(capfd.readouterr())
    assert "Epoch(train) [2][2/2]" in output and "Epoch(train) [1]" not in output
    assert "Class centers are those of the checkpoint" in output and "Gathering" not in output
    assert "resumed epoch: 1, iter: 2" in output
    # The checkpoint holds no teacher, and resuming knows that.
    for complaint in ("missing keys", "unexpected key", "do not match", "teacher.backbone"):
        assert complaint not in output
    first, second = (
        torch.load(folder / name, map_location="cpu", weights_only=True)["state_dict"]
        for folder, name in ((trained, "epoch_1.pth"), (tmp_path / "work", "epoch_2.pth"))
    )
    assert first.keys() == second.keys()
    key = "distiller.distill_losses.loss_nd.centers"
    assert torch.equal(first[key], second[key])
    key = "architecture.roi_head.bbox_head.fc_cls.weight"
    assert not torch.equal(first[key], second[key])


def test_trains_a_plain_detector_in_process(tool, config_file, tmp_path):
    tool("train", config_file("plain"), "--work-dir", tmp_path / "plain")
    saved = torch.load(tmp_path / "plain" / "epoch_1.pth", map_location="cpu", weights_only=True)
    assert "roi_head.bbox_head.fc_cls.weight" in saved["state_dict"]


def test_missing_dataset_is_one_sentence(recipe, tmp_path):
    # Once as a user sees it, with the exit code.
    command = [sys.executable, "-m", "kd_det", "train", recipe, "--work-dir", tmp_path / "work"]
    command += ["--cfg-options", f"train_dataloader.dataset.data_root={tmp_path}/digits-coco"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 1 and "Traceback" not in process.stderr
    # What imports warn of comes before.
    message, hint = process.stderr.splitlines()[-2:]
    assert message == (
        "error (FileNotFoundError): the train annotation file does not exist: "
        f"{tmp_path}/digits-coco/annotations/instances_train.json; "
        f"run: kd-det digits --root {tmp_path}/digits-coco"
    )
    assert "KD_DET_DEBUG=1" in hint
    assert not (tmp_path / "work").exists()


def test_work_directory_that_cannot_be_written_is_told(refusal, config_file, monkeypatch):
    monkeypatch.setattr(common.os, "access", lambda path, mode: False)  # the tests may run as root
    message = refusal("train", config_file(), "--work-dir", "/some/where/else")
    assert "/some/where/else cannot be written, since / is read-only; choose another" in message


# Arguments and options, with TMP for a folder of "file", a text, and "mine", data without images.
REFUSED = {
    "no teacher": (
        [],
        {"model.teacher_ckpt": "TMP/teacher.pth"},
        "error (FileNotFoundError): the teacher's checkpoint does not exist: TMP/teacher.pth; "
        "train the teacher first, or set model.teacher_ckpt to its file or URL",
    ),
    "no checkpoint": ([], {"model.teacher_ckpt": "TMP/file"}, "TMP/file"),
    "no images": (
        [],
        {"train_dataloader.dataset.data_root": "TMP/mine"},
        "the train image folder does not exist: TMP/mine/train; put the dataset there, or set "
        "train_dataloader.dataset.data_root",
    ),
    "work directory is a file": (["--work-dir", "TMP/file"], {}, "since TMP/file is a file"),
    "work directory in a file": (["--work-dir", "TMP/file/run"], {}, "since TMP/file is a file"),
    "nothing to resume": (
        ["--resume", "TMP/epoch_9.pth"],
        {},
        "does not exist: TMP/epoch_9.pth; --resume alone takes the last one",
    ),
    "no base batch": (["--auto-scale-lr"], {}, "needs auto_scale_lr.base_batch_size"),
    "no batch": (
        [],
        {"train_dataloader.batch_size": 9, "train_dataloader.drop_last": True},
        "train_dataloader has no batch: 8 images in batches of 9. With drop_last,",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_go_well_is_one_sentence(refusal, config_file, tmp_path, name):
    arguments, options, message = REFUSED[name]
    (tmp_path / "file").write_text("some text")
    (tmp_path / "mine" / "annotations").mkdir(parents=True)
    (tmp_path / "mine" / "annotations" / "instances_train.json").write_text("{}")

    def fill(value: object) -> object:
        return value.replace("TMP", str(tmp_path)) if isinstance(value, str) else value

    config = config_file(**{key: fill(value) for key, value in options.items()})
    assert fill(message) in refusal("train", config, *map(fill, arguments))


@pytest.mark.parametrize(
    ("names", "content", "message"),
    [
        ("annotations/instances_train.json", b"", "in COCO format, found nothing"),
        ("annotations/instances_train.json", b"<html>", "in COCO format, found b'<html>"),
        ("train/*", b"\xff\xd8\xff\xe0", "failed to load: not an image"),
    ],
)
def test_damaged_files_are_named(refusal, config_file, digits, tmp_path, names, content, message):
    data = shutil.copytree(digits, tmp_path / "data")
    for path in data.glob(names):
        path.write_bytes(content)
    options = {"train_dataloader.dataset.data_root": str(data)}
    found = refusal("train", config_file(**options))
    assert message in found and f"{data}/{names.partition('*')[0]}" in found


def test_missing_data_without_annotation_file_has_a_remedy(refusal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = ROOT / "configs" / "cls" / "cifar100_r56_r20.py"
    options = ["--method", "kd", "--cfg-options", "model.teacher_ckpt=https://x/t.pth"]
    message = "the train data does not exist: data/cifar100/cifar-100-python; put the dataset there"
    assert message in refusal("train", config, *options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_amp_is_bfloat16_on_a_cpu(tool, config_file, tmp_path, monkeypatch):
    """All parts of a step compute in it, and all losses are finite numbers."""
    seen = set()
    linear = F.linear

    def watched(x: torch.Tensor, *args: torch.Tensor) -> torch.Tensor:
        result = linear(x, *args)
        seen.add(result.dtype)
        return result

    monkeypatch.setattr(F, "linear", watched)
    # As a config for a GPU asks for it.
    wrapper = {"optim_wrapper.type": "AmpOptimWrapper", "optim_wrapper.loss_scale": "dynamic"}
    tool("train", config_file(**wrapper), "--work-dir", tmp_path / "amp")
    assert torch.bfloat16 in seen
    losses = {k: v for k, v in read_scalars(tmp_path / "amp").items() if k.startswith("distill.")}
    assert losses and all(0 < v < 1e3 for values in losses.values() for v in values.values())
    state = torch.load(tmp_path / "amp" / "epoch_1.pth", weights_only=True)["state_dict"]
    assert {v.dtype for v in state.values() if v.is_floating_point()} == {torch.float32}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("kind", ["OptimWrapper", "mmengine.optim.AmpOptimWrapper"])
def test_mixed_precision_is_asked_for_in_either_way(config_file, amp, kind):
    cfg = Config.fromfile(config_file("plain", **{"optim_wrapper.type": kind}))
    prepare(cfg, argparse.Namespace(amp=amp, auto_scale_lr=False, resume=None))
    mixed = amp or kind != "OptimWrapper"
    assert cfg.optim_wrapper.type == ("kd_det.Bfloat16OptimWrapper" if mixed else kind)


@pytest.mark.parametrize(
    ("argument", "code", "told"), [("--help", 0, "example:\n  tools/dist"), ("x.py", 2, "usage: ")]
)
def test_the_launcher_says_how_it_is_called(argument, code, told):
    command = ["bash", ROOT / "tools" / "dist_train.sh", argument]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code and told in done.stdout + done.stderr


def test_config_of_a_package_is_found():
    name = "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"
    cfg = common.load_config(make_parser("kd-det train").parse_args([name]))
    assert cfg.model.type == "FasterRCNN"
    assert cfg.work_dir == "work_dirs/faster-rcnn_r50_fpn_1x_coco"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("configs/no.py", "does not exist: configs/no.py; recipes are named like kd_det::"),
        ("mmdet::faster_rcnn/faster-rcnn_r50_fpn_coco.py", "faster-rcnn_r50_fpn_1x_coco.py"),
        ("mmdett::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", "mmdett"),
        ("mmdet::faster", "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"),
        ("mmcls::nothing/zzz.py", "mmpretrain/.mim/configs"),
    ],
)
def test_a_missing_config_is_one_sentence(refusal, name, told):
    message = refusal("train", name)
    assert name in message and told in message


def stopped_by(error: BaseException) -> None:
    def main() -> None:
        raise error

    common.run(main, common.GOES_ON)


def test_ctrl_c_says_how_to_go_on(capsys):
    with pytest.raises(SystemExit) as caught:
        stopped_by(KeyboardInterrupt())
    assert caught.value.code == 130
    assert capsys.readouterr().err == f"\nstopped; {common.GOES_ON}\n"


def test_both_sides_of_a_fault_are_printed():
    error = WiringError("shapes differ")
    add_note(error, "loss_nd: s_emb from the student")
    with pytest.raises(SystemExit, match=r"shapes differ\n  loss_nd: s_emb from the student"):
        stopped_by(error)


def test_a_fault_keeps_its_traceback():
    with pytest.raises(KeyError):
        stopped_by(KeyError("data_preprocessor"))  # raised in our own code, and not for users
