# Sourced by main.sh and test.sh: sets PYTHON to an interpreter that has the packages, and makes .venv here where there is none.
# shellcheck shell=bash

fail() { echo "error: $*" >&2; exit 1; }

supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

importable() { "$1" -c "import importlib.util as u, sys; sys.exit(any(u.find_spec(m) is None for m in sys.argv[1:]))" "${@:2}" 2>/dev/null; }

# environment REQUIREMENTS MODULE ...; LOCK: a file of versions to take
environment() {
    if command -v flock >/dev/null; then  # another command may be installing the same packages
        exec 9<.
        flock 9
        provide "$@"
        exec 9<&-
    else
        provide "$@"
    fi
}

provide() {
    local requirements=$1 candidate; shift
    for candidate in "$PWD/.venv/bin/python" python3 python; do
        if supported "$candidate" && importable "$candidate" "$@"; then PYTHON=$candidate; return; fi
    done
    if [ ! -x .venv/bin/python ]; then
        PYTHON=
        for candidate in python3.13 python3.12 python3.11 python3 python; do
            if supported "$candidate"; then PYTHON=$candidate; break; fi
        done
        [ -n "$PYTHON" ] || fail "Python 3.11, 3.12 or 3.13 is needed; found $(python3 --version 2>&1 || echo none). Install one of them and run this again."
        echo "making .venv with $($PYTHON --version)" >&2
        mkdir .venv 2>/dev/null || fail "$PWD/.venv is not an environment of this system (it has no bin/python), and it is not ours to remove; move it away and run this again"
        "$PYTHON" -m venv .venv || { rm -rf .venv; fail "$PYTHON cannot make a virtual environment (Debian and Ubuntu: apt install python3-venv)"; }
    fi
    PYTHON="$PWD/.venv/bin/python"
    supported "$PYTHON" || fail ".venv has $($PYTHON --version 2>&1), not Python 3.11 to 3.13; remove the folder .venv and run this again"
    echo "installing $requirements into .venv (PyTorch is large: a few minutes)" >&2
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$requirements" ${LOCK:+-c "$LOCK"} ||
        fail "pip could not install $requirements; check the network (or the index that pip is set to) and run this again"
}
