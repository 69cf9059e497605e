"""The same as ``kd-det doctor``, for people who work in a clone."""

from kd_det.commands import run

if __name__ == "__main__":
    run("doctor", prog="python tools/doctor.py")
