"""The same as ``kd-det report``, for people who work in a clone."""

from kd_det.commands import run

if __name__ == "__main__":
    run("report", prog="python tools/report.py")
