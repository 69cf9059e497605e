"""A pyramid is made of records of several modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import kd_det  # noqa: F401  (patches the stack before mmrazor is imported)


class Stages(nn.Module):
    """Two stages, of which the second is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.second = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = self.second(self.second(x))
        return self.head(x.mean((2, 3)))


LEVELS = [
    "first",
    dict(type="ModuleInputs", source="second", record_idx=-1, data_idx=0),
    dict(type="ModuleInputs", source="head", data_idx=0),
]


def manager(levels: list) -> object:
    from mmrazor.models.task_modules import RecorderManager

    return RecorderManager(dict(stages=dict(type="kd_det.Pyramid", levels=levels)))


def test_levels_are_what_their_recorders_keep():
    model, x = Stages(), torch.randn(2, 3, 5, 5)
    recorders = manager(LEVELS)
    recorders.initialize(model)
    recorder = recorders.get_recorder("stages")
    with recorders:
        model(x)
    first = model.first(x)
    second = model.second(first)
    expected = [first, second, model.second(second).mean((2, 3))]
    levels = recorder.get_record_data()
    assert len(levels) == 3
    for level, value in zip(levels, expected):
        torch.testing.assert_close(level, value)
    assert recorder.get_record_data(data_idx=1) is levels[1]
    assert len(recorder.data_buffer) == 1
    assert recorder.source == "first, input of second (call -1), input of head"

    model(x)  # not recorded
    assert recorder.get_record_data()[0] is levels[0]
    recorder.reset_data_buffer()
    assert recorder.data_buffer == []


def test_entering_again_forgets_the_last_step():
    model = Stages()
    recorders = manager(LEVELS)
    recorders.initialize(model)
    for number in (2, 3):
        with recorders:
            model(torch.randn(number, 3, 5, 5))
    assert all(len(x) == 3 for x in recorders.get_recorder("stages").get_record_data())


def test_a_level_without_its_record_is_named():
    model = Stages()
    levels = [*LEVELS, dict(type="ModuleOutputs", source="first", record_idx=1)]
    recorders = manager(levels)
    recorders.initialize(model)
    with recorders:
        model(torch.randn(1, 3, 5, 5))
    with pytest.raises(ValueError, match=r"1 records of first, expected \{'record_idx': 1\}"):
        recorders.get_recorder("stages").get_record_data()


def test_no_levels_are_refused():
    with pytest.raises(ValueError, match="at least one level"):
        manager([])


@pytest.mark.parametrize("level", ["frist", dict(type="ModuleInputs", source="frist")])
def test_a_level_that_names_no_module_is_refused_when_the_model_is_built(level):
    from kd_det.algorithms import WiringError
    from kd_det.algorithms.wiring import check_sources

    with pytest.raises(WiringError, match=r"'stages' has source 'frist'.*first, head, second"):
        check_sources(dict(stages=dict(type="kd_det.Pyramid", levels=[level])), Stages(), "student")


@pytest.mark.parametrize("of_function", [False, True], ids=["module", "method"])
def test_recording_goes_on_where_it_was(of_function):
    from mmrazor.models.task_modules import MethodOutputsRecorder, ModuleOutputsRecorder

    from kd_det.recorders import recording

    layer = nn.ReLU()
    recorder = (
        MethodOutputsRecorder("torch.nn.modules.activation.ReLU.forward")
        if of_function
        else ModuleOutputsRecorder("layer")
    )
    recorder.initialize(nn.ModuleDict({"layer": layer}))
    with recording([recorder]):
        layer(torch.tensor(1.0))
    layer(torch.tensor(2.0))
    with recording([recorder], go_on=True):
        layer(torch.tensor(3.0))
    assert [float(x) for x in recorder.data_buffer] == [1, 3]
    with recording([recorder]):
        layer(torch.tensor(4.0))
    assert [float(x) for x in recorder.data_buffer] == [4]


def test_a_pyramid_goes_on_with_its_levels():
    from kd_det.recorders import PyramidRecorder, recording

    model = nn.ModuleDict({"fine": nn.Identity(), "deep": nn.Identity()})
    recorder = PyramidRecorder(["fine", "deep"])
    recorder.initialize(model)
    with recording([recorder]):
        model["fine"](torch.tensor(1.0))
        assert recorder.data_buffer == []
    with recording([recorder], go_on=True):
        model["deep"](torch.tensor(3.0))
    assert recorder.get_record_data() == [1, 3]


def test_a_parameter_is_recorded_once_however_often_recording_goes_on():
    from mmrazor.models.task_modules.recorder import ParameterRecorder

    from kd_det.recorders import recording

    recorder = ParameterRecorder("weight")
    recorder.initialize(nn.Linear(1, 1))
    for _ in range(3):
        with recording([recorder], go_on=True):
            pass
    assert len(recorder.data_buffer) == 1
