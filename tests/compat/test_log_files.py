"""Every line reaches the log file, whatever the locale."""

from __future__ import annotations

from inspect import signature

from mmengine.logging import MMLogger


def test_a_log_file_is_utf8(tmp_path, capsys):
    path = tmp_path / "run.log"
    options = {}
    if "file_handler_cfg" in signature(MMLogger).parameters:  # not in older mmengine
        options["file_handler_cfg"] = dict(type="WatchedFileHandler", encoding="latin-1")
    logger = MMLogger("test", log_file=str(path), **options)
    logger.info("苹果 \udcff")
    for handler in logger.handlers:
        handler.close()
    assert "苹果 \\udcff\n" in path.read_text(encoding="utf-8")
