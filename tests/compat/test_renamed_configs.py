"""Configs of mmrazor that name a file by its former name parse."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.utils import get_installed_path, is_installed

from kd_det.compat.renamed_configs import RENAMED

BREAKAGE = {
    "renamed": """
import os
from importlib.util import find_spec
from mmengine.config.utils import _get_package_and_cfg_path
package, path = _get_package_and_cfg_path("mmdet::faster_rcnn/faster_rcnn_r50_fpn_1x_coco.py")
os.stat(os.path.join(os.path.dirname(find_spec(package).origin), ".mim", "configs", path))
"""
}


def test_breaks_without_the_patch(unpatched):
    assert unpatched["renamed"].startswith("FileNotFoundError")


@pytest.mark.parametrize(("package", "former"), RENAMED)
def test_former_name_gives_the_same_config(package, former):
    if not is_installed(package):
        pytest.skip(f"{package} not installed")
    present = get_config(f"{package}::{RENAMED[package, former]}")
    assert get_config(f"{package}::{former}").to_dict() == present.to_dict()
    assert not (Path(get_installed_path(package)) / ".mim" / "configs" / former).exists()


def test_an_unknown_name_is_still_an_error(tmp_path):
    config = tmp_path / "config.py"
    config.write_text("_base_ = 'mmdet::faster_rcnn/no_such_file.py'\n")
    with pytest.raises(FileNotFoundError, match=r"no_such_file\.py"):
        Config.fromfile(config)
