# Sourced by main.sh and test.sh: sets PYTHON to an interpreter that has the packages, and makes .venv here where there is none.
# shellcheck shell=bash

fail() { echo "error: $*" >&2; exit 1; }

supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; }

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
        for candidate in python3.13 python3.14 python3.12 python3.11 python3 python; do
            if supported "$candidate"; then PYTHON=$candidate; break; fi
        done
        [ -n "$PYTHON" ] || fail "Python 3.11 to 3.14 is needed; found $(python3 --version 2>&1 || echo none). Install one of them and run this again."
        echo "making .venv with $($PYTHON --version)" >&2
        mkdir .venv 2>/dev/null || fail "$PWD/.venv is not an environment of this system (it has no bin/python), and it is not ours to remove; move it away and run this again"
        "$PYTHON" -m venv .venv || { rm -rf .venv; fail "$PYTHON cannot make a virtual environment (Debian and Ubuntu: apt install python3-venv)"; }
    fi
    PYTHON="$PWD/.venv/bin/python"
    supported "$PYTHON" || fail ".venv has $($PYTHON --version 2>&1), not Python 3.11 to 3.14; remove the folder .venv and run this again"
    echo "installing $requirements into .venv (PyTorch is large: a few minutes)" >&2
    fetch "$requirements" || fail "pip could not install $requirements; check the network (or the index that pip is set to) and run this again"
}

fetch() { # by uv, which is several times faster, or by pip
    local rows=(-r "$1" ${LOCK:+-c "$LOCK"})
    with_uv "${rows[@]}" 2>/dev/null || "$PYTHON" -m pip install --quiet --disable-pip-version-check "${rows[@]}"
}

with_uv() ( # in a shell of its own, which says to uv what pip is set to
    "$PYTHON" -m pip install --quiet --disable-pip-version-check uv || exit
    while IFS='=' read -r name value; do
        value=${value#\'}; value=${value%\'}
        case $name in
            *.index-url) export UV_DEFAULT_INDEX=$value ;;
            *.extra-index-url) export UV_INDEX=$value ;;
            *.find-links) export UV_FIND_LINKS=$value ;;
            *.constraint) export UV_CONSTRAINT=$value ;;
            *.no-index) export UV_NO_INDEX=$value ;;
            *.cert) export SSL_CERT_FILE=$value ;;
        esac
    done < <("$PYTHON" -m pip config list)
    UV_INDEX_STRATEGY=unsafe-best-match "$PYTHON" -m uv pip install --quiet --python "$PYTHON" "$@"
)
