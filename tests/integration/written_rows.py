"""The writer of the copy without Kafka: gets records as capture encodes them, one transaction at a time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from schemas.model import change
from schemas.registry.registry import FolderRegistry
from sink.database import connect, transaction
from sink.documents.profile import Profile, load_profile
from sink.layer import migrate
from sink.staging.assembly import Row
from sink.staging.schema import StagedTable
from sink.staging.writer import CopyWriter
from tests.integration.stager_feed import Feed, Piece

SALES_ORDER: Mapping[str, str] = {"sales_order.sql": "SELECT id AS key FROM orders WHERE id = ANY (%(keys)s::bigint[])"}


@dataclass
class Written(Feed):
    """`heads`: the profile's SQL files."""

    heads: Mapping[str, str] = field(default_factory=lambda: dict(SALES_ORDER))

    def __post_init__(self) -> None:
        self._codecs = {}
        self.registry = FolderRegistry(self.folder / "registry")
        self.connection = connect(self.url, "ordertap_shop")
        migrate(self.connection, "shop")
        self._offsets: dict[tuple[str, int], itertools.count[int]] = {}
        with transaction(self.connection) as cursor:
            self.copy.prepare(cursor)

    @cached_property
    def profile(self) -> Profile:  # type: ignore[override]
        folder = self.folder / "profile"
        folder.mkdir()
        (folder / "profile.yaml").write_text(self.profile_text)
        for name, text in self.heads.items():
            (folder / name).write_text(text)
        return load_profile(str(folder))

    @cached_property
    def copy(self) -> CopyWriter:
        return self.writer()

    def row(self, piece: Piece) -> Row:
        """The record of a change, at the next offset of its partition."""
        key, value, headers = self._record(piece)
        topic = self.topic(piece.table)
        offset = next(self._offsets.setdefault((topic, piece.partition), itertools.count()))
        return (topic, piece.partition, offset, key, value, headers[0][1], headers[-1][1], tuple(headers[1:-1]))

    def stage(self, *changes: Piece | Row) -> None:
        """Makes changes visible in one transaction."""
        self.stage_parts(changes)

    def stage_parts(self, *parts: Sequence[Piece | Row]) -> None:
        """Makes changes visible in one transaction that writes them part by part, as it does those of a large
        commit."""
        tables = {self.topic(table): table for table in self.types}
        with transaction(self.connection) as cursor:
            for part in parts:
                rows = [self.row(one) if isinstance(one, Piece) else one for one in part]
                self.copy.write(cursor, rows, self.copy.decode(rows, tables), tables)
            self.copy.mark(cursor)

    def staged(self, cursor: Any, name: str) -> StagedTable:
        """A staged table."""
        return self.copy._catalogue.loaded(cursor)[name]


def unchanged(*columns: str) -> tuple[tuple[str, bytes], ...]:
    """The header of a record that leaves out these columns."""
    return ((change.UNCHANGED_HEADER, change.unchanged_header(list(columns))),)


def key_change(old: Piece, new: Piece, without: Iterable[str] = ()) -> tuple[Piece, Piece]:
    """Both halves of a change of key. Each names the other's key. `without`: columns that the new one leaves out."""
    left_out = unchanged(*without) if without else ()
    return (
        old._replace(op="d", headers=((change.NEW_KEY_HEADER, _key(new)),)),
        new._replace(op="c", headers=((change.OLD_KEY_HEADER, _key(old)), *left_out)),
    )


def _key(piece: Piece) -> bytes:
    return json.dumps({"id": piece.row["id"]}).encode()
