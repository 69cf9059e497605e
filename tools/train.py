"""The same as ``kd-det train``, for people who work in a clone."""

from kd_det.commands import run

if __name__ == "__main__":
    run("train", prog="python tools/train.py")
