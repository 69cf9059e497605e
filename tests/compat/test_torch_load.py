"""MMEngine's checkpoints load with `weights_only=True`; files that would do more are refused."""

from __future__ import annotations

import io
import os
import pickle
import re
import tarfile
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.optim import OneCycleLR
from mmengine.runner import CheckpointLoader, Runner
from torch import nn

BREAKAGE = {
    "torch_load": """
import io, torch
from mmengine.logging import HistoryBuffer
file = io.BytesIO()
torch.save({"message_hub": HistoryBuffer([1.0], [1])}, file)
file.seek(0)
torch.load(file)
"""
}


def test_breaks_without_the_patch(unpatched):
    """Where `torch.load` takes weights only; before torch 2.6 it executed what it was given."""
    by_default = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 6)
    assert (unpatched["torch_load"] is not None) == by_default
    if by_default:
        assert "Weights only load failed" in unpatched["torch_load"]


def loaded(value: object) -> object:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x, mode="loss"):
        return dict(loss=(self.layer(x) - 2 * x).square().mean())


def make_runner(work_dir: Path, name: str, epochs: int, **kwargs) -> Runner:
    return Runner(
        model=Model(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=[dict(x=torch.tensor([i / 4])) for i in range(4)],
            batch_size=2,
            sampler=dict(type="DefaultSampler", shuffle=False),
            collate_fn=dict(type="default_collate"),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.01)),
        param_scheduler=[
            dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=2),
            dict(type="OneCycleLR", eta_max=0.1, total_steps=10),
        ],
        experiment_name=name,
        **kwargs,
    )


def test_a_runner_resumes_what_it_saved(tmp_path):
    first = make_runner(tmp_path, "torch_load_first", epochs=2)
    # What hooks and evaluators leave there: NumPy's numbers, arrays, plain values.
    first.message_hub.update_info("best", np.float32(0.25))
    first.message_hub.update_info("curve", np.arange(6.0).reshape(2, 3))
    first.train()

    second = make_runner(tmp_path, "torch_load_second", epochs=3, resume=True)
    second.load_or_resume()

    assert second.epoch == 2 and second.iter == 4
    assert torch.equal(second.model.layer.weight, first.model.layer.weight)
    moments = second.optim_wrapper.optimizer.state_dict()["state"][0]["exp_avg"]
    assert torch.equal(moments, first.optim_wrapper.optimizer.state_dict()["state"][0]["exp_avg"])
    for ours, theirs in zip(second.param_schedulers, first.param_schedulers):
        assert ours.last_step == theirs.last_step and ours._last_value == theirs._last_value
    hub, saved = second.message_hub, first.message_hub
    assert hub.get_info("best") == np.float32(0.25)
    np.testing.assert_array_equal(hub.get_info("curve"), saved.get_info("curve"))
    losses = hub.get_scalar("train/loss")
    assert type(losses) is HistoryBuffer
    np.testing.assert_array_equal(losses.data[0], saved.get_scalar("train/loss").data[0])

    second.train()
    assert len(hub.get_scalar("train/loss").data[0]) == 6
    assert (
        CheckpointLoader.load_checkpoint(str(tmp_path / "epoch_3.pth"), "cpu")["meta"]["epoch"] == 3
    )


ARRAYS = {
    "matrix": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "no dimension": np.array(3.0),
    "empty": np.zeros((0, 3), np.float16),
    "big endian": np.arange(3, dtype=">i4"),
    "bool": np.array([True, False]),
    "complex": np.array([1 + 2j]),
    "texts": np.array(["ab", "c"]),
    "bytes": np.array([b"abc"]),
}
SCALARS = [np.float32(2.5), np.float64(1e300), np.int64(-7), np.uint8(255), np.bool_(True)]
SCALARS += [np.complex64(1 - 2j), np.float16(0.5), np.str_("text")]


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back_as_they_were(name):
    """Twice, since what was loaded is saved again with the next checkpoint."""
    again = loaded(loaded(ARRAYS[name]))
    assert isinstance(again, np.ndarray) and again.dtype.kind == ARRAYS[name].dtype.kind
    np.testing.assert_array_equal(again, ARRAYS[name])
    assert type(pickle.loads(pickle.dumps(again))) is np.ndarray
    assert type(np.append(again, again[:0] if again.ndim else 1.0)) is np.ndarray or again.ndim


@pytest.mark.parametrize("scalar", SCALARS, ids=repr)
def test_scalars_come_back_as_they_were(scalar):
    again = loaded(scalar)
    assert type(again) is type(scalar) and again == scalar


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_files_of_numpy_1_and_2(tmp_path, module):
    """The module was renamed; a file carries the name that its own numpy had."""
    torch.save({"a": np.arange(3.0), "s": np.float64(2)}, tmp_path / "written.pth")
    with (
        zipfile.ZipFile(tmp_path / "written.pth") as old,
        zipfile.ZipFile(tmp_path / "renamed.pth", "w") as new,
    ):
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.endswith("data.pkl"):
                data, count = re.subn(rb"numpy\._?core\.multiarray", module, data)
                assert count == 2
            new.writestr(entry.filename, data)
    back = torch.load(tmp_path / "renamed.pth", weights_only=True)
    assert back["s"] == 2 and back["a"].tolist() == [0, 1, 2]


def test_a_new_history_buffer_is_still_empty():
    buffer = loaded(HistoryBuffer())
    buffer.update(2.0)
    assert buffer.statistics("mean", 1) == 2 and type(buffer.data[0]) is np.ndarray


@pytest.mark.parametrize("curve", ["cos", "linear"])
def test_state_of_the_one_cycle_scheduler(curve):
    """It keeps its annealing function, a static method, in its state."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    state = OneCycleLR(optimizer, eta_max=1.0, total_steps=5, anneal_strategy=curve).state_dict()
    assert loaded(state) == state


class Reduced:
    """Pickles as a call of `function` with `arguments`, and then `state`."""

    def __init__(self, *recipe):
        self.recipe = recipe

    def __reduce__(self):
        return self.recipe


def exploits(marker: Path) -> dict[str, object]:
    """Objects that create `marker` when a pickle of them is loaded without care."""
    array = np.zeros(3)
    return {
        "a call of os.system": Reduced(os.system, (f"touch {marker}",)),
        "getattr from the statistics to the interpreter": Reduced(
            Reduced(
                getattr,
                (Reduced(getattr, (HistoryBuffer.mean, "__globals__")), "get"),
            ),
            ("os",),
        ),
        "a bound method of an array": Reduced(array.tofile, (str(marker),)),
        "an array of objects": np.array([Reduced(os.system, (f"touch {marker}",))], dtype=object),
    }


@pytest.mark.parametrize("kind", ["a call of os.system", "a bound method of an array"])
def test_the_exploits_would_work(tmp_path, kind):
    """Loaded without care they run; so the next test proves something."""
    marker = tmp_path / "ran"
    pickle.loads(pickle.dumps(exploits(marker)[kind]))
    assert marker.exists()


@pytest.mark.parametrize(
    "kind", ["a call of os.system", "a bound method of an array", "an array of objects"]
)
def test_malicious_files_are_refused_and_do_not_run(tmp_path, kind):
    marker = tmp_path / "ran"
    checkpoint = {"state_dict": {}, "meta": {}, "message_hub": exploits(marker)[kind]}
    torch.save(checkpoint, tmp_path / "bad.pth")
    with pytest.raises(pickle.UnpicklingError):
        CheckpointLoader.load_checkpoint(str(tmp_path / "bad.pth"), "cpu")
    assert not marker.exists()


def refused(value: object, match: str) -> None:
    with pytest.raises(pickle.UnpicklingError, match=match):
        loaded(value)


def test_getattr_reaches_nothing_but_the_statistics():
    for owner, name in [
        (HistoryBuffer, "__init__"),
        (HistoryBuffer, "__subclasses__"),
        (HistoryBuffer, "register_statistics"),
        (HistoryBuffer([1.0], [1]), "mean"),
        ("text", "format"),
        (OneCycleLR.__mro__[2], "__init__"),
    ]:
        refused(Reduced(getattr, (owner, name)), "refused getattr|Unsupported global")
    chain = Reduced(getattr, (HistoryBuffer.mean, "__globals__"))
    refused(chain, "refused getattr")
    refused(Reduced(getattr, (HistoryBuffer, "mean", None)), "refused getattr")


def test_what_getattr_serves_cannot_be_called():
    refused(Reduced(HistoryBuffer.mean, (HistoryBuffer([1.0], [1]),)), "unrecognized function")


@pytest.mark.parametrize("code", ["O", "V8", "M8[D]", "f8,i4", "(2,)f8"])
def test_only_dtypes_of_plain_values(code):
    refused(Reduced(np.dtype, (code, False, True)), "refused numpy.dtype")


@pytest.mark.parametrize(
    "state",
    [
        (3, "<", None, None, None, -1, -1, 63),  # flags: holds references
        (3, "<", None, ("a",), {"a": (np.dtype("f8"), 10**6)}, -1, -1, 0),  # a field out of bounds
        (3, "<", (np.dtype("f8"), (9,)), None, None, -1, -1, 0),  # more than its bytes
        (3, "<", None, None, None, 10**6, -1, 0),
    ],
)
def test_a_dtype_cannot_be_bent(state):
    """The real `numpy.dtype.__setstate__` believes each of these."""
    refused(Reduced(np.dtype, ("f8", False, True), state), "refused the state")


def test_arrays_and_bytes_are_not_made_at_will():
    """Neither uninitialised memory nor huge requests for it."""
    refused(Reduced(np.ndarray, ((10,),)), "refused")
    refused(Reduced(bytes, (10**6,)), "refused bytes")
    reconstruct = np.zeros(1).__reduce__()[0]
    refused(Reduced(reconstruct, (np.ndarray, (10**6,), b"b")), "refused an array")
    scalar = np.float64(1).__reduce__()[0]
    refused(Reduced(scalar, (np.dtype("f8"), b"123")), "refused a numpy scalar")


class Scripted(nn.Module):
    def forward(self, x):
        return x


@pytest.mark.filterwarnings("ignore")  # of torch.jit itself
def test_programs_of_torchscript_are_refused(tmp_path):
    """Before torch 2.6, `torch.load` handed them on to `torch.jit.load`, whatever it was asked."""
    torch.jit.save(torch.jit.script(Scripted()), tmp_path / "script.pth")
    with pytest.raises((pickle.UnpicklingError, RuntimeError), match="TorchScript"):
        CheckpointLoader.load_checkpoint(str(tmp_path / "script.pth"), "cpu")


def test_archives_of_the_first_format_are_refused(tmp_path):
    """Before torch 2.6, `torch.load` unpacked them, whatever it was asked."""
    with tarfile.open(tmp_path / "old.pth", "w") as archive:
        for name in ("sys_info", "storages", "tensors", "pickle"):
            content = pickle.dumps({}, 2)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    with pytest.raises((pickle.UnpicklingError, RuntimeError), match=r"tar"):
        CheckpointLoader.load_checkpoint(str(tmp_path / "old.pth"), "cpu")


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_of_both_formats_load(tmp_path, zipped):
    path = tmp_path / "weights.pth"
    content = {"state_dict": {"w": torch.arange(3.0), "b": nn.Parameter(torch.ones(2))}}
    content["optimizer"] = {"milestones": Counter([2, 4]), "order": OrderedDict(a=1)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    back = CheckpointLoader.load_checkpoint(str(path), "cpu")
    assert torch.equal(back["state_dict"]["w"], torch.arange(3.0))
    assert isinstance(back["state_dict"]["b"], nn.Parameter)
    assert back["optimizer"] == content["optimizer"]


def pickled(*lines: bytes) -> bytes:
    return b"\x80\x02" + b"".join(lines) + b"."


@pytest.mark.parametrize(
    "content",
    [
        # State given to a class: it would get an attribute of the file's choice.
        pickled(
            b"cmmengine.logging.history_buffer\nHistoryBuffer\n", b"}}X\1\0\0\0aK\1s\x86b"
        ),
        # The same for a function, whose attributes decide what it does.
        pickled(b"ctorch._utils\n_rebuild_tensor_v2\n", b"}}X\x0c\0\0\0__defaults__Ns\x86b"),
        # Entries written into what is no dict.
        pickled(b"ccollections\nOrderedDict\n", b"K\1K\2s"),
        # Names of the form that pickle has since protocol 4.
        pickled(b"X\x02\0\0\0os", b"X\6\0\0\0system", b"\x93"),
        # Old ways to call something.
        pickled(b"(X\2\0\0\0ls", b"ios\nsystem\n"),
        pickled(b"cposix\nsystem\n", b"X\2\0\0\0ls\x85R"),
    ],
)  # fmt: skip
def test_operations_that_weights_do_not_need_are_refused(tmp_path, content):
    with zipfile.ZipFile(tmp_path / "bad.pth", "w") as file:
        file.writestr("bad/data.pkl", content)
        file.writestr("bad/version", "3\n")
        file.writestr("bad/byteorder", "little")
    with pytest.raises((pickle.UnpicklingError, TypeError)):  # torch 2.6 assigns to any object
        CheckpointLoader.load_checkpoint(str(tmp_path / "bad.pth"), "cpu")
    assert not hasattr(HistoryBuffer, "a")
