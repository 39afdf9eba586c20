# Sourced by ./deploy/demo and ./tests/run. Makes .venv from PyPI once; later runs need no network.

venv=.venv

# PYTHON in the environment: that one or none.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "ordertap needs Python 3.11 or later, and ${PYTHON:-what is on the PATH} is none" >&2
    echo "  next: install it, or name one: PYTHON=/path/to/python3 $0" >&2
    return 1
}

# make_environment EXTRA…: $venv in the current folder, with ordertap itself editable and these extras.
make_environment() {
    local python wanted extra missing='' extras
    extras=$(IFS=,; echo "$*")
    wanted=$(cat pyproject.toml tests/constraints.txt deploy/hatch_build.py schemas/writing/rowpath.pyx | cksum)
    for extra in "$@"; do
        [ "$(cat "$venv/installed-$extra" 2>/dev/null)" = "$wanted" ] || missing=yes
    done
    [ -n "$missing" ] || return 0
    python=$(find_python)
    echo "installing into $venv from PyPI, about a minute, once"
    trap 'echo "stopped; the next start goes on" >&2; exit 130' INT  # pip ends as if it had failed
    # Debian's Python without its venv module leaves an environment without pip.
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1 && ! "$python" -m venv "$venv"; then
        echo "no virtual environment could be made" >&2
        echo "  next: install Python's venv module (Debian: apt install python3-venv), then start again" >&2
        return 1
    fi
    if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c tests/constraints.txt \
        -e ".[$extras]" >"$venv/install.log" 2>&1; then
        cat "$venv/install.log" >&2
        echo "the installation failed (above)" >&2
        echo "  next: check that PyPI can be reached and the disk has 1 GB free, then start again" >&2
        return 1
    fi
    for extra in "$@"; do echo "$wanted" >"$venv/installed-$extra"; done
    trap - INT
}
