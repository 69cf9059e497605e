"""The same as ``kd-det demo``, for people who work in a clone."""

from kd_det.commands import run

if __name__ == "__main__":
    run("demo", prog="python tools/demo.py")
