"""The source transaction that a stream reads, and the limit for the size of a record."""

from __future__ import annotations

from math import inf
from typing import Final, NamedTuple

from capture.changes.tables import Draft
from capture.changes.versions import ParkedError
from capture.position import Partial
from capture.postgres import pgoutput
from schemas.model.change import TRANSACTION_HEADER, transaction_header
from schemas.model.commits import TableTopic
from schemas.model.errors import DataError
from schemas.writing.codec import PlacedPrefix, SourcePrefix

_GROWTH: Final = 5  # no message grows more than this as Avro: a float8 of two characters takes nine bytes
_HEADER_ROOM: Final = 1024  # bytes


class RecordLimit(NamedTuple):
    """The largest record that Kafka takes, in bytes, and whether a larger one parks its table (otherwise everything
    stops). `every`: each record is measured, because even a small row may become a large one (JSON repeats all column
    names)."""

    largest: int
    park: bool
    every: bool = False

    @property
    def suspect(self) -> int:
        """No message up to this size makes too large a record."""
        return 0 if self.every else self.largest // _GROWTH

    def check(self, table: str, drafts: list[Draft], stamp: bytes) -> None:
        """ParkedError or DataError if one of a change's records, with room for its headers, is too large."""
        largest = max(len(key or b"") + len(value or b"") for _, _, key, value, _ in drafts)
        self.check_bytes(table, largest, f"the change {stamp.decode()} (generation, commit LSN, ordinal)")

    def check_bytes(self, table: str, size: int, what: str) -> None:
        """The same for a record of `size` bytes that `what` makes."""
        largest = size + _HEADER_ROOM
        if largest <= self.largest:
            return
        said = f"table {table}: {what} makes a record of {largest} bytes, and message.max.bytes is {self.largest}"
        remedy = f"raise message.max.bytes in `kafka` and max.message.bytes of the topic of {table}"
        if self.park:
            raise ParkedError(table, said, remedy)
        raise DataError(f"{said}; nothing is lost", f"{remedy}, then start again; or set oversized_record: park")


class Transaction:
    """The source transaction that is being read.

    `ordinal` is that of the last change; changes up to `skip` are in Kafka already. `drafts` and their `bytes` are not
    handed to the writer yet; `handed` says whether anything was. `counts` are those of the index of commits, `size`
    those of the END.
    """

    __slots__ = (
        "bytes", "commit_lsn", "commit_us", "counts", "drafts", "handed", "header", "ordinal", "prefix", "size", "skip",
        "stamp", "xid",
    )  # fmt: skip

    def __init__(
        self, begin: pgoutput.Begin, prefix: SourcePrefix, generation: int, written: Partial | None, passed: bool
    ) -> None:
        """`written`: how far it is in Kafka. `passed`: all of it is."""
        self.commit_lsn, self.commit_us, self.xid = begin
        self.prefix = prefix
        self.stamp = b"%d:%d:" % (generation, begin.commit_lsn)  # and the ordinal
        self.header = (TRANSACTION_HEADER, transaction_header(begin.xid, begin.commit_lsn))
        self.skip: float = inf if passed else 0
        self.size: dict[str, int] = {}
        self.counts: dict[TableTopic, int] = {}
        self.handed = written is not None
        if written is not None:
            self.size, self.counts = dict(written.size), dict(written.counts or {})
            self.skip = self.skip or written.ordinal
        self.ordinal = 0
        self.drafts: list[Draft] = []
        self.bytes = 0

    @property
    def passed(self) -> bool:
        """Whether all of it is in Kafka."""
        return self.skip == inf

    def next(self) -> int:
        """The ordinal of the next change."""
        self.ordinal += 1
        return self.ordinal

    def take(self, drafts: list[Draft], size: int) -> None:
        """Keeps the drafts of a change, of `size` bytes, with the header that names their commit."""
        for draft in drafts:
            draft[4].append(self.header)
        self.drafts += drafts
        self.bytes += size

    def handed_on(self) -> None:
        """Its drafts were handed to the writer."""
        self.handed = True
        self.drafts = []
        self.bytes = 0

    def came_from(self, origin: pgoutput.Origin) -> None:
        """Notes that a subscription, or another replication tool, wrote the transaction."""
        self.prefix = self.prefix.from_origin(origin.name, origin.lsn)

    def written(self) -> Partial:
        """How far the transaction is written, once its drafts are."""
        return Partial(self.commit_lsn, self.ordinal, dict(self.size), dict(self.counts))

    @property
    def id(self) -> str:
        """The transaction's id as Debezium writes it: xid:lsn."""
        return f"{self.xid}:{int(self.commit_lsn)}"

    def place_of_next(self, name: str) -> SourcePrefix:
        """The prefix with the place of the next change. `name`: its table or other collection."""
        total, of_table, transaction_id = sum(self.size.values()), self.size.get(name, 0), self.id.encode()
        place = PlacedPrefix(*self.prefix.placed(transaction_id, total + 1, of_table + 1))
        place.behind = self.prefix.placed(transaction_id, total + 2, of_table + 2)
        return place
