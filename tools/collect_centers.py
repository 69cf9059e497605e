"""The same as ``kd-det centers``, for people who work in a clone."""

from kd_det.commands import run

if __name__ == "__main__":
    run("centers", prog="python tools/collect_centers.py")
