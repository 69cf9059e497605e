"""The same as ``kd-det digits``, for people who work in a clone."""

from kd_det.commands import run

if __name__ == "__main__":
    run("digits", prog="python tools/make_digits_coco.py")
