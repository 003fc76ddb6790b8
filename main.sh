#!/usr/bin/env bash
# bash main.sh N [flags of main.py]: N processes on this node, one a GPU (without GPUs: on the CPU, through gloo).
# Several nodes: NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT, the same command on each. MAX_RESTARTS restarts after a failure.
[ -n "${BASH_VERSION:-}" ] || { echo "error: this is a script of bash: bash main.sh N [flags of main.py]" >&2; exit 1; }
set -euo pipefail
unset CDPATH # cd would go to a folder of the same name there
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
source "$root/utils/settings/environment.sh"

[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || fail "usage: bash main.sh N [flags of main.py], N = number of processes (GPUs), e.g. bash main.sh 1 --train --test"
processes=$1; shift
for name in NNODES NODE_RANK MASTER_PORT MAX_RESTARTS; do
    value=${!name:-0}
    [[ $value =~ ^[0-9]{1,9}$ ]] || fail "$name must be a whole number, not '$value'"
done
[ "${NNODES:-1}" != 0 ] || fail "NNODES must be at least 1"
cd -- "$root"
environment requirements.txt torch torchvision timm safetensors cv2 numpy PIL scipy h5py yaml tqdm loguru filelock tensorboard jinja2 onnx onnxruntime onnxscript
cd -- "$OLDPWD" # relative paths in the flags start there

if [ "$processes" = 1 ] && [ "${NNODES:-1}" = 1 ]; then
    exec "$PYTHON" "$root/main.py" "$@"
fi
if [ "${NNODES:-1}" = 1 ] && [ -z "${MASTER_PORT:-}" ]; then
    where=(--standalone) # a free port
else
    where=(--nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${MASTER_PORT:-29500}")
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$PYTHON" -P -m utils.train.launch "${where[@]}" --nproc-per-node "$processes" --max-restarts "${MAX_RESTARTS:-0}" -- "$root/main.py" "$@"
