"""The same as ``kd-det test``, for people who work in a clone."""

from kd_det.commands import run

if __name__ == "__main__":
    run("test", prog="python tools/test.py")
