"""mmrazor's generators can be asked as if they were wrapped, and still be wrapped."""

from __future__ import annotations

import pytest
from torch import nn

LEFT_OUT = {
    "mmrazor_datafree": """
from mmrazor.models import DAFLGenerator
DAFLGenerator(img_size=8, latent_dim=4, hidden_channels=8).module.latent_dim
"""
}


def test_breaks_without_the_patch(left_out):
    error = left_out["mmrazor_datafree"]
    assert error == "AttributeError: 'DAFLGenerator' object has no attribute 'module'"


@pytest.mark.parametrize("kind", ["DAFLGenerator", "ZSKTGenerator"])
def test_latent_size_of_a_generator_in_one_process(kind):
    from mmrazor.registry import MODELS

    cfg = dict(type=f"mmrazor.{kind}", img_size=8, latent_dim=4, hidden_channels=8)
    generator = MODELS.build(cfg)
    assert generator.module.latent_dim == 4
    # It is no child of itself.
    assert not any("module" in key.split(".") for key in generator.state_dict())
    assert nn.DataParallel(generator).module is generator
