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
    assert unpatched["quantization"] is not None and unpatched["mmrazor.models"] is not None


def test_mmrazor_registers_everything():
    from mmrazor.registry import LOOPS, MODELS
    from mmrazor.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    names = ("SingleTeacherDistill", "ConfigurableDistiller", "ChannelWiseDivergence")
    assert all(name in MODELS for name in names)
    assert "mmrazor.SelfDistillValLoop" in LOOPS


def test_use_of_quantization_says_why_it_is_not_there():
    from mmrazor.registry import MODELS
    from mmrazor.structures.quantization import BackendConfigs, QConfigHandler

    parts = ("w_qscheme", "a_qscheme", "w_observer", "a_observer")
    quantizer = dict(type="TensorRTQuantizer", global_qconfig={part: {} for part in parts})
    uses = (
        lambda: BackendConfigs["native"],
        lambda: QConfigHandler({}),
        lambda: QConfigHandler.check_qconfig({}),
        lambda: __import__("mmrazor.structures.quantization.qconfig"),
        # Parts of it are named without a scope; an earlier test may have left another as default.
        lambda: MODELS.build(dict(quantizer, _scope_="mmrazor")),
    )
    for use in uses:
        with pytest.raises(
            MissingPackageError, match="quantization of mmrazor is not available"
        ) as caught:
            use()
        assert torch.__version__ in str(caught.value)
