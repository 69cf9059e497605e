"""benchmarks/compare_cls.py."""

from __future__ import annotations

from kd_det.report.scalars import read_scalars


def test_methods_are_trained_and_tabled(run, tmp_path):
    """A teacher, the student alone and the student taught, for an epoch."""
    out, root = tmp_path / "table.md", tmp_path / "runs"
    options = ["--methods", "review_nd", "--seeds", 0, "--epochs", 1, "--root", root, "--out", out]
    run("compare_cls", *options)
    rows = [line.split(" | ") for line in out.read_text().splitlines() if line.startswith("| ")]
    assert [row[0].strip("| ") for row in rows] == ["method", "plain", "review_nd"]
    for name, row in (("plain_s0", rows[1]), ("review_nd_s0", rows[2])):
        (accuracy,) = read_scalars(root / name)["accuracy/top1"].values()
        assert row[1] == f"{accuracy:.2f}"
    assert (root / "review_nd_s0" / "class_centers.safetensors").is_file()
