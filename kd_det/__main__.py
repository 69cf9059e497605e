"""``python -m kd_det``: the same as ``kd-det``."""

from kd_det.commands import main

if __name__ == "__main__":
    main()
