"""ClassCenters: the means, their file, and what is refused."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from kd_det.centers import ClassCenters, ClassCentersError, class_names_text

CLASSES, DIM = 5, 7
METADATA = {
    "class_names": class_names_text(["Käfer", "bird", "cat", "dog", "background"]),
    "embedding": "roi_head.bbox_head.fc_cls",
    "teacher_sha256": "ab" * 32,
    "dataset": "digits",
    "kd_det_version": "0.1",
}


@pytest.fixture
def samples() -> tuple[Tensor, Tensor]:
    """200 embeddings and labels; class 3 never occurs."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1, 2, 4])[torch.randint(4, (200,), generator=generator)]
    return torch.randn(200, DIM, generator=generator) * 10 + 3, labels


def gathered(emb: Tensor, labels: Tensor, metadata: dict | None = METADATA) -> ClassCenters:
    centers = ClassCenters(CLASSES, DIM, metadata)
    centers.update(emb, labels)
    return centers


def slow_means(emb: Tensor, labels: Tensor) -> tuple[list[list[float]], list[int]]:
    """Mean and count of each class, in plain Python (float64)."""
    rows: list[list[list[float]]] = [[] for _ in range(CLASSES)]
    for row, label in zip(emb.tolist(), labels.tolist()):
        rows[label].append(row)
    means = [
        [sum(column) / len(members) for column in zip(*members)] if members else [0.0] * DIM
        for members in rows
    ]
    return means, [len(members) for members in rows]


def assert_equal(found: ClassCenters, expected: ClassCenters) -> None:
    assert torch.equal(found.counts, expected.counts)
    assert torch.equal(found.means, expected.means)


# Means


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
def test_means_are_those_of_a_loop(samples, dtype, device):
    emb, labels = samples[0].to(dtype), samples[1]
    centers = gathered(emb.to(device), labels.to(device))
    means, counts = slow_means(emb, labels)
    assert centers.means.dtype == torch.float32
    assert centers.counts.dtype == torch.int64
    assert centers.counts.tolist() == counts
    # float32 keeps 24 bits: half a unit in the last place is a relative 2^-24.
    torch.testing.assert_close(
        centers.means.cpu().double(), torch.tensor(means).double(), rtol=2e-7, atol=0
    )


def test_sums_do_not_lose_small_embeddings_beside_large_ones():
    # In float32, 1e8 + 1 = 1e8: the mean of 1e8 and 255 ones would be 1e8 / 256.
    emb = torch.ones(256, 1)
    emb[0] = 1e8
    centers = ClassCenters(1, 1)
    centers.update(emb, torch.zeros(256, dtype=torch.int64))
    assert centers.means.double() * 256 == pytest.approx(1e8 + 255, rel=1e-7)
    assert centers.means == torch.tensor((1e8 + 255) / 256)


def test_merging_leaves_the_other_alone(samples):
    emb, labels = samples
    other, total = gathered(emb, labels), ClassCenters(CLASSES, DIM)
    total.merge(other)
    total.merge(other)
    assert_equal(other, gathered(emb, labels))
    assert torch.equal(total.counts, 2 * other.counts)
    assert torch.equal(total.means, other.means)


def test_embeddings_keep_no_graph():
    emb = torch.randn(3, DIM, requires_grad=True)
    centers = gathered(emb * 2, torch.tensor([0, 1, 1]))
    assert not centers.means.requires_grad


def test_all_reduce_alone_changes_nothing(samples):
    centers = gathered(*samples)
    centers.all_reduce()
    assert_equal(centers, gathered(*samples))


# By name, the samples that each of two ranks has seen.
SHARES = {
    "both": [slice(0, 50), slice(50, 200)],
    "only-the-first": [slice(0, 200), slice(0, 0)],
}


def reduce_on_rank(rank: int, folder: str, emb: Tensor, labels: Tensor) -> None:
    """What one of two processes does; each writes what it has afterwards."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    for name, shares in SHARES.items():
        centers = gathered(emb[shares[rank]], labels[shares[rank]])
        centers.all_reduce()
        centers.save(Path(folder) / f"{name}{rank}.safetensors")
    dist.destroy_process_group()


def test_two_processes_agree_on_what_one_would_find(samples, tmp_path):
    mp.spawn(reduce_on_rank, args=(str(tmp_path), *samples), nprocs=2)
    alone = gathered(*samples)
    for name in SHARES:
        first, second = (
            ClassCenters.load(tmp_path / f"{name}{rank}.safetensors") for rank in range(2)
        )
        assert_equal(first, second)
        assert torch.equal(first.counts, alone.counts)
        torch.testing.assert_close(first.means, alone.means, rtol=2e-7, atol=0)


# What is refused


@pytest.mark.parametrize(
    "emb_shape, labels, message",
    [
        ([3, DIM + 1], [0, 1, 2], r"embeddings \[N, 7\] and labels \[N\], got \[3, 8\] and \[3\]"),
        ([3, DIM], [0, 1], r"got \[3, 7\] and \[2\]"),
        ([DIM], [0], r"got \[7\] and \[1\]"),
        ([3, DIM, 1], [0, 1, 2], r"got \[3, 7, 1\]"),
        ([3, DIM], [[0], [1], [2]], r"got \[3, 7\] and \[3, 1\]"),
        ([3, DIM], [0, CLASSES, 1], "of 5 classes got labels from 0 to 5"),
        ([3, DIM], [0, -1, 1], "of 5 classes got labels from -1 to 1"),
        ([0, DIM + 1], [], r"got \[0, 8\] and \[0\]"),
    ],
)
def test_samples_that_do_not_fit_are_an_error(samples, emb_shape, labels, message):
    centers = gathered(*samples)
    with pytest.raises(ValueError, match=message):
        centers.update(torch.ones(emb_shape), torch.tensor(labels, dtype=torch.int64))
    assert_equal(centers, gathered(*samples))


@pytest.mark.parametrize("sizes", [(CLASSES + 1, DIM), (CLASSES, DIM + 1)])
def test_centers_of_other_sizes_do_not_merge(samples, sizes):
    centers = gathered(*samples)
    message = rf"centers \[{sizes[0]}, {sizes[1]}\] into centers \[5, 7\]"
    with pytest.raises(ValueError, match=message):
        centers.merge(ClassCenters(*sizes))
    assert_equal(centers, gathered(*samples))


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (-1, 3)])
def test_sizes_are_positive(sizes):
    with pytest.raises(ValueError, match=f"num_classes={sizes[0]}, embed_dim={sizes[1]}"):
        ClassCenters(*sizes)


# The file


def test_file_of_the_documented_layout_brings_back_everything(samples, tmp_path):
    from safetensors import safe_open

    centers, path = gathered(*samples), tmp_path / "new" / "centers.safetensors"
    centers.save(path)  # makes the folder
    loaded = ClassCenters.load(path, num_classes=CLASSES, embed_dim=DIM, metadata=METADATA)
    assert_equal(loaded, centers)
    assert loaded.metadata == {**METADATA, "format_version": "1"}
    assert (loaded.num_classes, loaded.embed_dim) == (CLASSES, DIM)
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == {"centers", "counts"}
        assert torch.equal(file.get_tensor("centers"), centers.means)
        assert torch.equal(file.get_tensor("counts"), centers.counts)
        names = json.loads(file.metadata()["class_names"])
    assert names == ["Käfer", "bird", "cat", "dog", "background"]


@pytest.mark.parametrize("count", [1, 3, 2**28, 2**28 - 1])
def test_large_counts_come_back_exactly(tmp_path, count):
    # A float32 mean has 24 bits, the count 28: their product fits into the 53 of float64.
    generator = torch.Generator().manual_seed(count)
    means = torch.randn(CLASSES, DIM, generator=generator)
    counts = torch.full((CLASSES,), count)
    path = tmp_path / "centers.safetensors"
    write_file(path, means, counts)
    loaded = ClassCenters.load(path)
    assert torch.equal(loaded.means, means)
    assert torch.equal(loaded.counts, counts)
    loaded.save(path)
    assert_equal(ClassCenters.load(path), loaded)


def test_gathering_goes_on_after_loading(samples, tmp_path):
    emb, labels = samples
    gathered(emb[:120], labels[:120]).save(tmp_path / "centers.safetensors")
    centers = ClassCenters.load(tmp_path / "centers.safetensors")
    centers.update(emb[120:], labels[120:])
    whole = gathered(emb, labels)
    assert torch.equal(centers.counts, whole.counts)
    # The mean of the first part was rounded to float32 on its way through the file.
    torch.testing.assert_close(centers.means, whole.means, rtol=1e-6, atol=1e-6)


def write_file(path: Path, means: Tensor, counts: Tensor, **metadata: str) -> None:
    """A file as `save` would write it, without its checks."""
    from safetensors.torch import save_file

    metadata = {"format_version": "1", **metadata}
    save_file({"centers": means, "counts": counts}, path, metadata=metadata)


def test_missing_file_is_an_error_with_the_path(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match=str(path)):
            ClassCenters.load(path)


def test_every_truncated_file_is_refused(samples, tmp_path):
    path = tmp_path / "centers.safetensors"
    gathered(*samples).save(path)
    whole = path.read_bytes()
    for kept in (0, 1, 7, 8, 9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(ClassCentersError, match="is not a file of class centers"):
            ClassCenters.load(path)


def test_a_flipped_bit_is_found(samples, tmp_path):
    """Also one that leaves a number a number."""
    path = tmp_path / "centers.safetensors"
    centers = ClassCenters(CLASSES, DIM)
    centers.update(*samples)
    centers.save(path)
    data = bytearray(path.read_bytes())
    data[-1 - 8 * CLASSES] ^= 1  # of a center
    path.write_bytes(data)
    with pytest.raises(ClassCentersError, match=r"is damaged: expected checksum \w{64}, found"):
        ClassCenters.load(path)


def test_a_file_from_before_checksums_is_read(samples, tmp_path):
    from safetensors.torch import load_file, save_file

    path = tmp_path / "centers.safetensors"
    centers = ClassCenters(CLASSES, DIM)
    centers.update(*samples)
    centers.save(path)
    save_file(load_file(path), path, metadata={"format_version": "1"})
    assert torch.equal(ClassCenters.load(path).means, centers.means)


@pytest.mark.parametrize(
    "wanted, message",
    [
        (dict(num_classes=6), "expected classes 6, found 5"),
        (dict(embed_dim=1024), "expected embedding size 1024, found 7"),
        (
            dict(metadata={"teacher_sha256": "cd" * 32}),
            f"another run, expected teacher_sha256 {'cd' * 32}, found {'ab' * 32}",
        ),
        (
            dict(
                metadata={
                    "class_names": class_names_text(["bird", "Käfer", "cat", "dog", "background"])
                }
            ),
            r'expected class_names \["bird", "Käfer", .*, found \["Käfer", "bird"',
        ),
        (dict(metadata={"assigner": "gt"}), "expected assigner gt, found None"),
    ],
)
def test_a_file_made_for_another_run_is_refused(samples, tmp_path, wanted, message):
    path = tmp_path / "centers.safetensors"
    gathered(*samples).save(path)
    with pytest.raises(ClassCentersError, match=message) as error:
        ClassCenters.load(path, **wanted)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "means, counts, metadata, message",
    [
        ([[1.0, 2.0]], [1], {"format_version": "2"}, "format version 1, found 2"),
        ([[1.0, float("nan")]], [1], {}, "expected finite centers, found inf or NaN"),
        ([[1.0, float("inf")]], [1], {}, "expected finite centers, found inf or NaN"),
        ([1.0, 2.0], [1, 1], {}, r"float32 \[C, D\] .* found torch.float32 \[2\]"),
        ([[1.0, 2.0]], [1, 1], {}, r"and torch.int64 \[2\]"),
        ([[1, 2]], [1], {}, r"found torch.int64 \[1, 2\]"),
        ([[1.0, 2.0]], [1.0], {}, r"and torch.float32 \[1\]"),
        ([[1.0, 2.0]], [-3], {}, "expected counts >= 0, found -3"),
        ([[]], [0], {}, r"found torch.float32 \[1, 0\]"),
    ],
)
def test_a_file_with_other_contents_is_refused(tmp_path, means, counts, metadata, message):
    path = tmp_path / "centers.safetensors"
    write_file(path, torch.tensor(means), torch.tensor(counts), **metadata)
    with pytest.raises(ClassCentersError, match=message):
        ClassCenters.load(path)


def test_a_safetensors_file_of_something_else_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ClassCentersError, match=r"is not a file of class centers: .*centers"):
        ClassCenters.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_means_that_are_not_finite_are_not_saved(samples, tmp_path, bad):
    emb, labels = samples[0].clone(), samples[1]
    emb[int((labels == 2).nonzero()[0]), 3] = bad
    with pytest.raises(ClassCentersError, match=r"classes \[2\] are not finite"):
        gathered(emb, labels).save(tmp_path / "centers.safetensors")
    assert os.listdir(tmp_path) == []


# The published JSON form


def json_file(folder: Path, text: str) -> Path:
    path = folder / "centers.json"
    path.write_text(text, encoding="utf-8")
    return path


def test_json_is_read_by_class_index(tmp_path):
    # Eleven classes: sorted as text, "10" would come before "2".
    rows = {str(i): [i + 0.5, -i] for i in range(11)}
    straight = ClassCenters.load(json_file(tmp_path, json.dumps(rows)), num_classes=11, embed_dim=2)
    assert straight.means.tolist() == [[i + 0.5, -i] for i in range(11)]
    assert straight.counts.tolist() == [1] * 11
    with_mark = json_file(tmp_path, f"\ufeff{json.dumps(rows)}")  # as Notepad saves it
    assert_equal(ClassCenters.load(with_mark), straight)
    mixed = dict(random.Random(0).sample(list(rows.items()), 11))
    assert list(mixed) != list(rows)
    assert_equal(ClassCenters.load(json_file(tmp_path, json.dumps(mixed))), straight)


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"0": [1, 2], "1": [3',  # cut off
        '{"0": [1, 2], "2": [3, 4]}',  # a gap
        '{"1": [1, 2], "2": [3, 4]}',  # does not begin at 0
        '{"cat": [1, 2], "dog": [3, 4]}',
        '{"0": [1, 2], "1": [3]}',  # ragged
        '{"0": [1, "2"]}',
        '{"0": [1, null]}',
        '{"0": {"a": 1}}',
        '{"0": 1, "1": 2}',
        '{"0": [[1, 2]]}',
        '{"0": []}',
        "{}",
        "[[1, 2]]",
        '"0"',
        "7",
        '{"0": [1, NaN]}',
        '{"0": [1, Infinity]}',
        '{"0": [1, 1e39]}',  # beyond float32
        f'{{"0": [1, {10**400}]}}',
    ],
    ids=lambda text: text[:24],
)
def test_json_of_another_form_is_refused(tmp_path, text):
    path = json_file(tmp_path, text)
    with pytest.raises(ClassCentersError, match=r"expected .*found ") as error:
        ClassCenters.load(path)
    assert str(path) in str(error.value)
