#!/usr/bin/env bash
# bash test.sh [--all] [flags of pytest]: installs what the tests need, once, and runs the quick tests, or all.
[ -n "${BASH_VERSION:-}" ] || { echo "error: this is a script of bash: bash test.sh [--all] [flags of pytest]" >&2; exit 1; }
set -euo pipefail
unset CDPATH # cd would go to a folder of the same name there
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
source utils/settings/environment.sh
[ "$(uname -sm)" != "Linux x86_64" ] || LOCK="requirements-lock.txt" # the tested set; elsewhere the newest of the ranges
environment requirements-dev.txt torch torchvision timm cv2 numpy scipy h5py yaml tqdm loguru tensorboard jinja2 onnx onnxruntime onnxscript pytest xdist hypothesis ruff
export OMP_NUM_THREADS=1  # of each worker: more would fight for the same cores
exec "$PYTHON" -m pytest -n auto --maxprocesses 3 --dist worksteal "$@"
