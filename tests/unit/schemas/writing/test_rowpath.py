"""The compiled way of a row: there where it can be, the same as the plain one, and put aside where that is wanted."""

import shutil
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from schemas.process.settings import PURE_PYTHON
from schemas.types.encoders import FAILURES, long_bytes
from schemas.writing import compiled
from schemas.writing.codec import Encoder, compile_codec
from tests.unit.schemas.examples import LSN_OF_ROW, ORDERS, ORDERS_FACTS, PREFIX, ROW, TOPIC

ROOT = Path(__file__).parents[4]
COMPILED = "from schemas.writing import rowpath"
CELLS = b"".join(b"n" if cell is None else b"t" + struct.pack(">I", len(cell)) + cell for cell in ROW)
MESSAGE = b"I" + struct.pack(">IcH", ORDERS.oid, b"N", len(ROW)) + CELLS


def has_compiler() -> bool:
    """Whether this machine can compile for this Python."""
    command = (sysconfig.get_config_var("CC") or "cc").split()[0]
    return shutil.which(command) is not None and Path(sysconfig.get_path("include"), "Python.h").exists()


def is_built() -> bool:
    """Whatever the environment wants."""
    return subprocess.run([sys.executable, "-c", COMPILED], cwd=ROOT, capture_output=True, check=False).returncode == 0


def encoder() -> Encoder:
    return compile_codec(TOPIC, ORDERS, ORDERS_FACTS).bind(3, 4)


def test_the_module_is_there_where_a_compiler_is() -> None:
    assert is_built() or not has_compiler(), "remove .venv/installed-test, and see .venv/install.log"


@pytest.mark.skipif(not is_built(), reason="rowpath.pyx is not compiled here")
def test_both_ways_make_the_same_of_a_hundred_thousand_messages() -> None:
    from tests.fuzzing.rowpath import compare

    found = compare(100_000, seed=20)
    assert found.findings == []
    assert found.records > 30_000
    assert found.compiled > 0.8 * found.records


@pytest.mark.skipif(not is_built(), reason="rowpath.pyx is not compiled here")
def test_a_message_that_is_cut_off_anywhere_is_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PURE_PYTHON, raising=False)
    record = encoder().record
    assert type(record).__name__ == "Record"
    assert record(MESSAGE, PREFIX, LSN_OF_ROW, "c")[0] is not None
    for size in range(len(MESSAGE)):
        with pytest.raises(FAILURES):
            record(MESSAGE[:size], PREFIX, LSN_OF_ROW, "c")


@pytest.mark.skipif(not is_built(), reason="rowpath.pyx is not compiled here")
def test_numbers_are_the_same_bytes() -> None:
    from schemas.writing import rowpath

    edges = {1 << bits for bits in (0, 6, 7, 13, 14, 27, 28, 62, 63, 64, 80)}
    for number in {0, *edges, *(edge - 1 for edge in edges)}:
        assert rowpath.long_bytes(number) == long_bytes(number)
        assert rowpath.long_bytes(-number) == long_bytes(-number)


def test_the_environment_forces_plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PURE_PYTHON, "1")
    assert compiled.rowpath() is None
    assert compiled.way_of_rows() == "plain Python (ORDERTAP_PURE_PYTHON)"
    assert type(encoder().record).__name__ == "function"
    monkeypatch.setenv(PURE_PYTHON, "0")
    assert (compiled.rowpath() is not None) == is_built()
    assert compiled.way_of_rows().startswith("compiled" if is_built() else "plain Python (the compiled module")


@pytest.mark.parametrize(("pure", "said"), [("1", "plain Python"), ("0", "compiled" if is_built() else "plain Python")])
def test_the_version_says_which_way_rows_go(monkeypatch: pytest.MonkeyPatch, pure: str, said: str) -> None:
    monkeypatch.setenv(PURE_PYTHON, pure)
    command = [sys.executable, "-m", "capture", "--version"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f", rows: {said}" in shown
