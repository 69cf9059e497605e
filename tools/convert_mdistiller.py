"""The same as ``kd-det convert_mdistiller``, for people who work in a clone."""

from kd_det.commands import run

if __name__ == "__main__":
    run("convert_mdistiller", prog="python tools/convert_mdistiller.py")
