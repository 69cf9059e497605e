"""The command line makes the set, says where it lies, and fails in one sentence."""

from __future__ import annotations

SMALL = ("--image-size", "32", "--train-images", "3", "--val-images", "2", "--seed", "5")


def test_makes_the_set_and_says_where_it_lies(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tool("digits", "--root", "data/digits", *SMALL)
    # Quiet but for one line, as the output is no terminal.
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{(tmp_path / 'data' / 'digits').resolve()}: made; ")
    assert "images in train/ (3) and val/ (2)" in line
    assert "annotations/instances_train.json and instances_val.json" in line
    assert len(list((tmp_path / "data" / "digits" / "train").glob("*.jpg"))) == 3


def test_finds_it_up_to_date_and_replaces_another_only_by_force(tool, refusal, tmp_path, capsys):
    options = ["digits", "--root", tmp_path / "digits", *SMALL]
    tool(*options)
    assert ": made; " in capsys.readouterr().out
    tool(*options)
    assert ": up to date; " in capsys.readouterr().out

    options += ["--val-images", "1"]
    message = refusal(*options)
    assert "val_images 1" in message and "found" in message and "val_images 2" in message
    tool(*options, "--force")
    assert ": made; " in capsys.readouterr().out
    assert len(list((tmp_path / "digits" / "val").glob("*.jpg"))) == 1


def test_bad_argument_is_one_sentence(refusal, tmp_path):
    message = refusal("digits", "--root", tmp_path / "digits", "--image-size", "16")
    assert message.endswith("image_size: expected an integer of 32 or more, found 16")
    assert list(tmp_path.iterdir()) == []
