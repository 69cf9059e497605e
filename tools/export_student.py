"""The same as ``kd-det export``, for people who work in a clone."""

from kd_det.commands import run

if __name__ == "__main__":
    run("export", prog="python tools/export_student.py")
