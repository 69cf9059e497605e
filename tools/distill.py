"""The same as ``kd-det distill``, for people who work in a clone."""

from kd_det.commands import run

if __name__ == "__main__":
    run("distill", prog="python tools/distill.py")
