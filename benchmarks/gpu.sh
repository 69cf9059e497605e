#!/usr/bin/env bash
# Tests and measurements on a GPU, in 8 minutes at most: bash benchmarks/gpu.sh --out FOLDER
# PYTHON is an interpreter with torch for the GPU. WHEELS is a folder of wheels that it lacks: they
# are installed into a temporary folder, without a package index. --help shows all options.
set -euo pipefail

PYTHON=${PYTHON:-python3}
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"

if [ -n "${WHEELS:-}" ]; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir \
        --target "$site" "$WHEELS"/*.whl
    export PYTHONPATH="$PYTHONPATH:$site"
fi

"$PYTHON" "$ROOT/benchmarks/gpu.py" "$@"
