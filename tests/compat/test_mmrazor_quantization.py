"""mmrazor imports and registers everything; only its quantization is unavailable."""

from __future__ import annotations

import pytest
import torch

from kd_det.errors import MissingPackageError

BREAKAGE = {
    "quantization": "import mmrazor.structures.quantization",
    "mmrazor.models": "import mmrazor.models",
}


def test_breaks_without_the_patch(unpatched):
    """On torch >= 2. With an older torch neither fails, and the real one must be left alone."""
    old_torch = int(torch.__version__.split(".")[0]) < 2
    assert (unpatched["quantization"] is None) == old_torch
    if not old_torch:
        assert unpatched["mmrazor.models"] is not None


def test_mmrazor_registers_everything():
    from mmrazor.registry import LOOPS, MODELS
    from mmrazor.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    names = ("SingleTeacherDistill", "ConfigurableDistiller", "ChannelWiseDivergence")
    assert all(name in MODELS for name in names)
    assert "mmrazor.SelfDistillValLoop" in LOOPS


def test_placeholder_only_where_the_real_one_fails(unpatched):
    from mmrazor.structures import quantization

    if unpatched["quantization"] is None:
        assert isinstance(quantization.BackendConfigs, dict)
    else:
        assert not isinstance(quantization.BackendConfigs, dict)


def test_use_of_quantization_says_why_it_is_not_there(unpatched):
    from mmrazor.structures.quantization import BackendConfigs, QConfigHandler

    if unpatched["quantization"] is None:
        assert "native" in BackendConfigs
        return
    uses = (
        lambda: BackendConfigs["native"],
        lambda: QConfigHandler({}),
        lambda: QConfigHandler.check_qconfig({}),
        lambda: __import__("mmrazor.structures.quantization.qconfig"),
    )
    for use in uses:
        with pytest.raises(
            MissingPackageError, match="quantization of mmrazor is not available"
        ) as caught:
            use()
        assert torch.__version__ in str(caught.value)


def test_a_quantizer_of_a_config_says_so_too(unpatched):
    from mmrazor.registry import MODELS

    if unpatched["quantization"] is None:
        return
    qconfig = dict(w_qscheme=dict(), a_qscheme=dict(), w_observer=dict(), a_observer=dict())
    with pytest.raises(MissingPackageError, match="quantization of mmrazor is not available"):
        # Parts of it are named without a scope; an earlier test may have left another as default.
        MODELS.build(dict(_scope_="mmrazor", type="TensorRTQuantizer", global_qconfig=qconfig))
