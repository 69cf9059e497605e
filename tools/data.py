"""The same as ``kd-det data``, for people who work in a clone."""

from kd_det.commands import run

if __name__ == "__main__":
    run("data", prog="python tools/data.py")
