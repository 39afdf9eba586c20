# Sourced by the launchers: `ordertap_venv EXTRAS` makes .venv from PyPI once and sets $python to its interpreter.
# A change of pyproject.toml or of the pins makes it anew; $ORDERTAP_PYTHON names an interpreter to use instead.

ordertap_venv() {
    local extras=$1 root made base stamp
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    if [ -n "${ORDERTAP_PYTHON:-}" ]; then
        python=$ORDERTAP_PYTHON
        return
    fi
    python=$root/.venv/bin/python
    made=$root/.venv/made-from-$extras
    stamp=$(cat "$root/pyproject.toml" "$root/tests/constraints.txt" 2>/dev/null | cksum)
    if [ -x "$python" ] && [ "$(cat "$made" 2>/dev/null)" = "$stamp" ]; then
        return
    fi
    for base in python3.13 python3.12 python3.11 python3; do
        "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
        base=
    done
    if [ -z "$base" ]; then
        echo "ordertap needs Python 3.11 or newer on the PATH" >&2
        return 2
    fi
    echo "making .venv from PyPI, once" >&2
    [ -x "$python" ] || "$base" -m venv "$root/.venv" || return 2
    local pins=()
    [ -f "$root/tests/constraints.txt" ] && pins=(-c "$root/tests/constraints.txt")
    "$python" -m pip install --quiet --disable-pip-version-check "${pins[@]}" -e "$root[$extras]" || return 2
    echo "$stamp" > "$made"
}
