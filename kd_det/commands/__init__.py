"""The command lines: `kd-det train`, `test`, `distill` and the others."""
