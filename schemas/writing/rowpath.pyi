"""The types of the compiled module; see rowpath.pyx."""

from collections.abc import Callable, Sequence
from typing import Any

from schemas.writing.layout import ColumnCodec
from schemas.writing.rowcode import RecordEncoder

class Record:
    def __init__(
        self,
        columns: Sequence[ColumnCodec],
        key: tuple[int, ...],
        key_head: bytes | None,
        value_head: bytes,
        table: bytes,
        plain: RecordEncoder,
    ) -> None: ...
    def __call__(self, data: bytes, prefix: Any, lsn: int, op: str) -> tuple[bytes | None, bytes]: ...

class UsualRows:
    last_start: int
    taken: int
    def __init__(
        self,
        read_message: Callable[[], Any],
        get: Callable[[bytes], Any],
        suspect: int,
        piece_records: int,
        piece_bytes: int,
        overhead: int,
    ) -> None: ...
    def read(self, transaction: Any, confirmed: int, most: int) -> Any: ...

def long_bytes(number: int) -> bytes: ...
def takes(columns: Sequence[ColumnCodec], key: tuple[int, ...]) -> bool: ...
