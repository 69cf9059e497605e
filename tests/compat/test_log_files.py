"""Every line reaches the log file, whatever the locale."""

from __future__ import annotations

from mmengine.logging import MMLogger


def test_a_log_file_is_utf8(tmp_path, capsys):
    path = tmp_path / "run.log"
    latin = dict(type="WatchedFileHandler", encoding="latin-1")
    logger = MMLogger("test", log_file=str(path), file_handler_cfg=latin)
    logger.info("苹果 \udcff")
    for handler in logger.handlers:
        handler.close()
    assert "苹果 \\udcff\n" in path.read_text(encoding="utf-8")
