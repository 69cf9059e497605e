#!/usr/bin/env bash
# The published table on COCO beside one's own: bash benchmarks/coco_table.sh --gpus 8
# PYTHON is an interpreter that has what kd_det needs. --help shows all options.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" "$ROOT/benchmarks/coco_table.py" "$@"
