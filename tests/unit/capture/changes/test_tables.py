"""The records of a change: where they lie, which belong together."""

import struct
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from capture.changes.tables import Draft, Made, Table, Tables
from capture.changes.transaction import RecordLimit
from capture.changes.versions import ParkedError, Policy, Versions, clash
from capture.selection import Lists, Selection
from schemas.model.change import NEW_KEY_HEADER, OLD_KEY_HEADER, STAMP_HEADER
from schemas.model.errors import DataError, SettingsError
from schemas.model.relation import Column, ColumnFacts, Relation, TableFacts
from schemas.reading.json_text import json_text
from schemas.registry.registry import IncompatibleError
from schemas.types.type_modes import Modes
from schemas.types.type_table import DEFAULT_MODES
from schemas.writing.codec import SourceOrigin
from schemas.writing.column_rules import Asterisks, ColumnRules
from schemas.writing.envelope import topic_name

TOPIC_OF = partial(topic_name, "shop")
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

    versions = Versions(TOPIC_OF, frozenset(), facts, registered.register, lambda _subject: None, lambda _topic: 3)
    return Tables(Selection(), True, versions)


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


def test_widening_asks_catalogue_and_registry_only_through_what_keeps_the_server_patient(
    tables: Tables, registered: Registered
) -> None:
    seen: list[int] = []

    def patiently(call: Callable[[], Made], /) -> Made:
        seen.append(len(registered))
        return call()

    orders = tables.relation(KEYED, patiently)
    assert orders is not None
    asked_before = len(registered)
    insert(orders, b"1", None)
    assert seen == [asked_before], "the registry was asked before, or without it"


def test_tables_that_are_not_included_are_none(registered: Registered) -> None:
    versions = Versions(TOPIC_OF, frozenset(), lambda _: FACTS, registered.register, lambda _: None, lambda _: 1)
    some = Tables(Selection(Lists(["public.log"])), True, versions)
    assert some.relation(KEYED) is None
    assert some.relation(replace(KEYED, oid=9)) is None
    assert not registered


def test_a_table_that_was_published_later_begins_with_its_first_change(
    tables: Tables, registered: Registered, capsys: pytest.CaptureFixture[str]
) -> None:
    """A partition that is published under its root never has one."""
    tables.account({"public.log"})
    for _ in range(2):
        assert tables.relation(KEYED) is None
        table(tables, KEYLESS)
    assert set(registered) == {"shop.public.log-value"}
    [oid] = tables.waiting
    assert tables.begin(oid, lambda call: call()) is tables.get(oid) is not None
    table(tables, KEYED)
    assert not tables.waiting
    said = capsys.readouterr().out
    assert said.count("capture signal snapshot public.orders") == 1
    assert "public.log" not in said


def test_tables_compiled_ahead_are_those_that_are_bound_later_until_they_are_forgotten() -> None:
    asked: list[str] = []

    def facts(relation: Relation) -> TableFacts:
        asked.append(relation.table)
        return FACTS if relation is KEYED else TableFacts((), {})

    registered = Registered()
    versions = Versions(TOPIC_OF, frozenset(), facts, registered.register, lambda _: None, lambda _: 3)
    tables = Tables(Selection(), True, versions, ["public.parked"])
    parked = replace(KEYLESS, oid=9, name="parked")
    schemas = tables.ahead([KEYED, KEYLESS, parked])
    subjects = ["shop.public.orders-key", "shop.public.orders-value", "shop.public.log-value"]
    assert [subject for subject, _ in schemas] == subjects
    assert registered == []
    assert table(tables, KEYED).encoder.codec.value_schema is schemas[1][1]
    assert (registered, asked) == (subjects[:2], ["public.orders", "public.log"])
    tables.forget()
    assert table(tables, KEYLESS).encoder.codec.value_schema == schemas[2][1]
    assert (registered, asked) == (subjects, ["public.orders", "public.log", "public.log"])


RETYPED = replace(KEYED, columns=(KEYED.columns[0], Column("note", 23, -1, False)))


def evolving(policy: Policy, refused: set[str], first: Relation = KEYED, modes: Modes = DEFAULT_MODES) -> Tables:
    """Tables whose registry refuses the second schema of these subjects."""
    schemas: dict[str, Any] = {}

    def register(subject: str, schema: dict[str, Any]) -> int:
        if subject in refused and schemas.get(subject, schema) != schema:
            raise IncompatibleError(subject, "INCOMPATIBLE")
        schemas[subject] = schema
        return len(schemas)

    versions = Versions(TOPIC_OF, frozenset(), lambda _: FACTS, register, schemas.get, lambda _: 3, policy, modes)
    made = Tables(Selection(), True, versions)
    made.relation(first)
    return made


def test_stop_names_the_column_that_clashes() -> None:
    with pytest.raises(SettingsError, match=r"public\.orders.*column note was string, is int") as refused:
        evolving("stop", {"shop.public.orders-value"}).relation(RETYPED)
    assert "incompatible_schema" in refused.value.hint


@pytest.mark.parametrize(("cell", "said"), [(b"NaN", True), (None, False)])
def test_where_the_null_of_a_nan_is_refused_the_setting_that_keeps_it_is_named(cell: bytes | None, said: bool) -> None:
    priced = replace(KEYED, columns=(KEYED.columns[0], Column("note", 1700)))
    modes = Modes(special_numbers="null")
    orders = evolving("stop", {"shop.public.orders-value"}, priced, modes).get(KEYED.oid.to_bytes(4, "big"))
    assert orders is not None
    with pytest.raises(SettingsError) as refused:
        insert(orders, b"1", cell)
    assert ("special_numbers: exact" in refused.value.hint) == said


def test_version_goes_on_in_the_first_topic_that_takes_the_schema() -> None:
    goes_on = evolving("version", {"shop.public.orders-value"})
    assert table(goes_on, RETYPED).topic == "shop.public.orders.v2"
    assert table(goes_on, KEYED).topic == "shop.public.orders", "an older version of the log goes where it went"


def test_park_leaves_the_table_out_until_it_is_brought_back() -> None:
    refused = {"shop.public.orders-value"}
    parked = evolving("park", refused)
    assert parked.relation(RETYPED) is None
    assert parked.parked == {"public.orders"}
    assert parked.relation(KEYED) is None, "it stays parked whatever comes"
    parked.unpark(["public.orders"])
    assert not parked.parked
    parked.relation(RETYPED)
    refused.clear()
    parked.unpark(["public.other", "public.orders"])
    assert parked.get(RETYPED.oid.to_bytes(4, "big")) is not None


def test_a_row_that_cannot_be_widened_parks_its_table() -> None:
    parked = evolving("park", {"shop.public.orders-value"})
    orders = parked.get(KEYED.oid.to_bytes(4, "big"))
    assert orders is not None
    with pytest.raises(ParkedError):
        insert(orders, b"1", None)


def test_a_label_that_the_catalogue_has_forgotten_does_not_hide_one_that_comes_later(registered: Registered) -> None:
    moods = replace(KEYED, columns=(KEYED.columns[0], Column("note", 90_000)))
    labels = ["sad"]
    asked: list[int] = []

    def facts(_relation: Relation) -> TableFacts:
        asked.append(1)
        return TableFacts(("id",), {"note": ColumnFacts(type_kind="e", labels=tuple(labels))})

    versions = Versions(TOPIC_OF, frozenset(), facts, registered.register, lambda _: None, lambda _: 1)
    orders = table(Tables(Selection(), True, versions), moods)
    for _ in range(3):
        insert(orders, b"1", b"old")
    assert len(asked) == 2, "once for all rows of a label that is not there"
    labels.append("happy")
    insert(orders, b"1", b"happy")
    assert "sad,happy" in str(orders.encoder.codec.value_schema)


@pytest.mark.parametrize(
    ("last", "key"),
    [
        ([("id", "order_id")], ("id", "order id")),
        ([("order_id", "id")], ("order id", "id")),
        ([("id",), ("gone",)], ()),
        ([], ()),
    ],
)
def test_a_table_that_is_gone_has_the_key_that_was_registered_last(
    last: list[tuple[str, ...]], key: tuple[str, ...]
) -> None:
    relation = Relation(9, "public", "gone", "f", (Column("id", 20, -1, True), Column("order id", 20, -1, True)))
    schemas = [{"fields": [{"name": name, "type": "long"} for name in names]} for names in last]

    def latest(subject: str) -> dict[str, Any] | None:
        return schemas[-1] if schemas and subject == "shop.public.gone-key" else None

    versions = Versions(TOPIC_OF, frozenset(), lambda _: TableFacts(None), lambda *_: 1, latest, lambda _: 1)
    assert versions.bind(relation).encoder.key_columns == key


@pytest.mark.parametrize(
    ("identity", "flagged", "rules", "key"),
    [
        ("d", "", ColumnRules(), ("b",)),  # its unique index, which the log does not flag
        ("d", "a", ColumnRules(), ("a",)),  # another key than the last one
        ("d", "b", ColumnRules(unlisted=frozenset("b")), ("b",)),
        ("f", "ab", ColumnRules(), ("b",)),
        ("f", "ab", ColumnRules(unlisted=frozenset("b")), ("b",)),  # a primary key stays though it is not listed
        ("f", "ab", ColumnRules(masks={"b": Asterisks(1)}), ()),
        ("n", "", ColumnRules(), ("b",)),
    ],
)
def test_a_table_that_is_gone_keeps_the_key_of_each_identity(
    identity: str, flagged: str, rules: ColumnRules, key: tuple[str, ...]
) -> None:
    relation = Relation(9, "public", "gone", identity, tuple(Column(name, 25, -1, name in flagged) for name in "ab"))

    def latest(subject: str) -> dict[str, Any] | None:
        return {"fields": [{"name": "b", "type": "string"}]} if subject.endswith("-key") else None

    versions = Versions(
        TOPIC_OF,
        frozenset(),
        lambda _: TableFacts(None),
        lambda *_: 1,
        latest,
        lambda _: 1,
        rules=lambda _: rules,
    )
    assert versions.bind(relation).encoder.key_columns == key


def test_a_further_unique_index_is_no_reason_for_another_key(capsys: pytest.CaptureFixture[str]) -> None:
    schemas: dict[str, Any] = {}
    indexes: list[tuple[str, ...]] = [("note",)]

    def register(subject: str, schema: dict[str, Any]) -> int:
        if subject.endswith("-key"):
            assert schemas.get(subject, schema) == schema or ("note",) not in indexes
        schemas[subject] = schema
        return 1

    def bound() -> tuple[str, ...]:
        versions = Versions(TOPIC_OF, frozenset(), facts, register, schemas.get, lambda _: 1)
        assert versions.bind(unkeyed).encoder.key_columns == kept.bind(unkeyed).encoder.key_columns
        return kept.bind(unkeyed).encoder.key_columns

    def facts(_relation: Relation) -> TableFacts:
        return TableFacts((), FACTS.columns, unique_indexes=tuple(indexes))

    unkeyed = replace(KEYED, columns=(Column("id", 20), Column("note", 25)))
    kept = Versions(TOPIC_OF, frozenset(), facts, register, schemas.get, lambda _: 1)
    assert bound() == ("note",)
    indexes.insert(0, ("id",))  # its name sorts first
    assert bound() == ("note",)
    assert "key of a table" not in capsys.readouterr().out
    indexes.remove(("note",))
    assert bound() == ("id",)
    indexes.clear()
    assert bound() == ()
    assert capsys.readouterr().out.count("key of a table has changed") == 2


@pytest.mark.parametrize("transitive", [False, True])
def test_an_array_that_had_a_default_in_the_registry_is_nullable_where_it_asks_for_one(transitive: bool) -> None:
    relation = replace(KEYED, columns=(KEYED.columns[0], Column("tags", 1009)))
    facts = TableFacts(("id",), {"id": ColumnFacts(not_null=True), "tags": ColumnFacts(True, "'{}'::text[]")})

    def tags(schema: dict[str, Any]) -> dict[str, Any]:
        (field,) = [one for one in schema["fields"][0]["type"][1]["fields"] if one["name"] == "tags"]
        return field  # type: ignore[no-any-return]

    schemas: dict[str, Any] = {}

    def register(subject: str, schema: dict[str, Any]) -> int:
        known = schemas.get(subject, {})
        if known and subject.endswith("-value") and transitive and "default" not in tags(schema):
            raise IncompatibleError(subject, "INCOMPATIBLE")
        schemas[subject] = schema
        return 1

    versions = Versions(TOPIC_OF, frozenset(), lambda _: facts, register, schemas.get, lambda _: 1)
    versions.bind(relation)
    tags(schemas["shop.public.orders-value"])["default"] = []  # as it was before arrays had none
    encoder = versions.bind(relation).encoder
    assert isinstance(tags(schemas["shop.public.orders-value"])["type"], list) == transitive
    assert encoder.has_key


def test_differences_are_told_for_people() -> None:
    old = {"fields": [{"name": "a", "type": "int"}, {"name": "b", "type": ["null", "string"], "default": None}]}
    new = {"fields": [{"name": "a", "type": ["null", "long"]}, {"name": "c", "type": "int"}]}
    assert clash(old, new) == [
        "column b is gone", "column c is new and has no default", "column a was int, is long or null",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("skipped", "update", "key_change"),
    [
        (["u"], "", "d tombstone c"),
        (["d"], "u", "c"),
        (["c"], "u", "d tombstone"),
        (["c", "d", "u"], "", ""),
        (["t"], "u", "d tombstone c"),
    ],
)
def test_a_key_change_is_skipped_by_halves(
    registered: Registered, skipped: list[str], update: str, key_change: str
) -> None:
    versions = Versions(TOPIC_OF, frozenset(), lambda _: FACTS, registered.register, lambda _: None, lambda _: 1)
    orders = table(Tables(Selection(Lists(skipped_operations=skipped)), True, versions), KEYED)
    plain = struct.pack(">cIc", b"U", KEYED.oid, b"N") + tuple_data(b"2", b"a")
    moved = struct.pack(">cIc", b"U", KEYED.oid, b"K") + tuple_data(b"1", None) + b"N" + tuple_data(b"2", b"a")
    same = struct.pack(">cIc", b"U", KEYED.oid, b"K") + tuple_data(b"2", None) + b"N" + tuple_data(b"2", b"a")
    assert ops(orders.update_in_part(plain, PREFIX, 1, b"1:2:1")) == update
    assert ops(orders.update_in_part(same, PREFIX, 1, b"1:2:1")) == update
    assert ops(orders.update_in_part(moved, PREFIX, 1, b"1:2:1")) == key_change


def ops(drafts: list[Draft]) -> str:
    """The operations of the drafts: the byte before the clock, which is three longs of this test's prefix."""
    tails = {PREFIX.tails[op] + PREFIX.clock: op for op in "cud"}
    return " ".join(
        "tombstone" if d[3] is None else next(op for tail, op in tails.items() if d[3].endswith(tail)) for d in drafts
    )


@pytest.mark.parametrize(("identity", "old_kind"), [("f", b"O"), ("i", b"K")])
def test_a_key_that_the_log_does_not_repeat_is_that_of_the_old_row(
    registered: Registered, identity: str, old_kind: bytes
) -> None:
    columns = (Column("id", 20, -1, True), Column("note", 25, -1, True))
    by_note = Selection(Lists(keys=[("public.orders", ("note",))])).rules
    versions = Versions(
        TOPIC_OF,
        frozenset(),
        lambda _: FACTS,
        registered.register,
        lambda _: None,
        lambda _: 1,
        rules=by_note,
    )
    orders = table(Tables(Selection(), True, versions), replace(KEYED, replica_identity=identity, columns=columns))
    unchanged = struct.pack(">HcI", 2, b"t", 1) + b"1u"
    message = struct.pack(">cIc", b"U", KEYED.oid, old_kind) + tuple_data(b"1", b"long") + b"N" + unchanged
    (draft,) = orders.update(message, PREFIX, 1, b"1:2:1")
    assert draft[2] is not None
    assert draft[2].endswith(b"long")
    assert headers(draft) == {STAMP_HEADER}


def test_every_json_record_is_measured_for_its_names_outgrow_the_row() -> None:
    names = [f"{number:063d}" for number in range(200)]
    wide = Relation(9, "public", "wide", "f", tuple(Column(name, 25, -1, False) for name in names))
    versions = Versions(
        TOPIC_OF,
        frozenset(),
        lambda _: TableFacts(),
        lambda *_: 1,
        lambda _: None,
        lambda _: 1,
        text_of=json_text,
    )
    message = struct.pack(">cIc", b"I", wide.oid, b"N") + tuple_data(*[None] * 200)
    drafts = table(Tables(Selection(), True, versions), wide).insert(message, PREFIX, 1, b"1:2:1")
    limit = RecordLimit(10_000, False, every=True)
    assert limit.suspect < len(message) < RecordLimit(10_000, False).suspect
    with pytest.raises(DataError, match=r"table public\.wide"):
        limit.check("public.wide", drafts, b"1:2:1")
