#!/usr/bin/env bash
# Train on several GPUs (or CPU processes).
set -euo pipefail
usage="usage: tools/dist_train.sh CONFIG PROCESSES [options of tools/train.py]

example:
  tools/dist_train.sh configs/frcnn_r101_r18_review_nd.py 8 --work-dir work_dirs/r18

several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each"
case "${1:-}" in -h | --help) echo "$usage" && exit ;; esac
if [ $# -lt 2 ]; then
    echo "$usage" >&2
    exit 2
fi
config=$1 processes=$2
shift 2
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$processes" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
