"""The records of a change: where they lie, which belong together."""

import struct
from dataclasses import replace

import pytest

from capture.tables import Draft, Table, Tables
from schemas.change import NEW_KEY_HEADER, OLD_KEY_HEADER, STAMP_HEADER
from schemas.codec import SourceOrigin
from schemas.relation import Column, ColumnFacts, Relation, TableFacts

KEYED = Relation(7, "public", "orders", "d", (Column("id", 20, -1, True), Column("note", 25, -1, False)))
KEYLESS = Relation(8, "public", "log", "f", (Column("note", 25, -1, False),))
FACTS = TableFacts(("id",), {"id": ColumnFacts(not_null=True), "note": ColumnFacts(not_null=True)})
PREFIX = SourceOrigin("shop", "shop", "0").transaction(5, 10, 90, 10)


class Registered(list[str]):
    """Subjects in order; the id is their number."""

    def register(self, subject: str, _schema: object) -> int:
        self.append(subject)
        return len(self)


@pytest.fixture
def registered() -> Registered:
    return Registered()


@pytest.fixture
def tables(registered: Registered) -> Tables:
    def facts(relation: Relation) -> TableFacts:
        return FACTS if relation.oid == KEYED.oid else TableFacts((), {})

    return Tables("shop", frozenset(), frozenset(), True, facts, registered.register, lambda _topic: 3)


def table(tables: Tables, relation: Relation) -> Table:
    found = tables.relation(relation)
    assert found is not None
    return found


def tuple_data(*cells: bytes | None) -> bytes:
    """TupleData: a count, then each value."""
    values = (b"n" if cell is None else struct.pack(">cI", b"t", len(cell)) + cell for cell in cells)
    return struct.pack(">H", len(cells)) + b"".join(values)


def insert(table: Table, *cells: bytes | None) -> list[Draft]:
    return table.insert(struct.pack(">cIc", b"I", KEYED.oid, b"N") + tuple_data(*cells), PREFIX, 1, b"1:2:1")


def headers(draft: Draft) -> set[str]:
    return {name for name, _ in draft[4]}


def test_rows_without_key_lie_in_one_partition_and_rows_with_key_by_it(tables: Tables) -> None:
    assert [d[1] for d in insert(table(tables, KEYLESS), b"a")] == [0]
    assert [d[1] for d in insert(table(tables, KEYED), b"1", b"a")] == [-1]


def test_truncate_goes_to_every_partition_as_one_change(tables: Tables) -> None:
    drafts = table(tables, KEYED).truncate(PREFIX, 1, b"1:2:4")
    assert [(d[1], d[2], d[4]) for d in drafts] == [(n, None, [(STAMP_HEADER, b"1:2:4")]) for n in range(3)]


def test_a_key_change_is_a_delete_its_tombstone_and_a_create_with_one_ordinal(tables: Tables) -> None:
    message = struct.pack(">cIc", b"U", KEYED.oid, b"K") + tuple_data(b"1", None) + b"N" + tuple_data(b"2", b"a")
    gone, tombstone, new = table(tables, KEYED).update(message, PREFIX, 1, b"1:2:9")
    assert gone[2] == tombstone[2] != new[2]
    assert tombstone[3] is None
    assert NEW_KEY_HEADER in headers(gone)
    assert NEW_KEY_HEADER in headers(tombstone)
    assert OLD_KEY_HEADER in headers(new)
    assert {gone[4][0], tombstone[4][0], new[4][0]} == {(STAMP_HEADER, b"1:2:9")}


def test_a_null_that_the_catalogue_rules_out_widens_and_registers_again(tables: Tables, registered: Registered) -> None:
    orders = table(tables, KEYED)
    before = len(registered)
    (draft,) = insert(orders, b"1", None)
    assert draft[3] is not None
    assert registered[before:] == ["shop.public.orders-key", "shop.public.orders-value"]


def test_tables_that_are_not_included_are_none(registered: Registered) -> None:
    some = Tables(
        "shop", frozenset({"public.log"}), frozenset(), True, lambda _: FACTS, registered.register, lambda _: 1
    )
    assert some.relation(KEYED) is None
    assert some.relation(replace(KEYED, oid=9)) is None
    assert not registered
