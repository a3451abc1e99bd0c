#!/usr/bin/env bash
# Trains with several processes, one for each GPU:
#   tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# For several machines set NNODES, NODE_RANK and MASTER_ADDR on each.
set -euo pipefail

if [ $# -lt 2 ]; then
    sed -n '2,4s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
config=$1 gpus=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)

exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$gpus" \
    "$here/train.py" "$config" --launcher pytorch "$@"
