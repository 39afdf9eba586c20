"""Columns that are left out, masked, hashed or truncated, and keys of other columns: in every way a row is written."""

import hashlib
import json
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.model.change import UNCHANGED, Cells
from schemas.model.errors import DataError, SettingsError
from schemas.model.relation import Column, ColumnFacts, Relation, TableFacts
from schemas.types.encoders import FAILURES
from schemas.writing.codec import Codec, Encoder, WidenError, compile_codec
from schemas.writing.column_rules import Asterisks, ColumnRules, Hashed, Mask, Truncated
from tests.record_reader import row_reader
from tests.unit.schemas.examples import LSN_OF_ROW, PREFIX

SECRET = "S3cret-Wört"
PEOPLE = Relation(
    5,
    "public",
    "people",
    "d",
    (
        Column("id", 20, -1, True),
        Column("name", 25),
        Column("iban", 1043, 10 + 4),
        Column("age", 23),
        Column("city", 25),
    ),
)
FULL = replace(PEOPLE, replica_identity="f", columns=tuple(replace(c, key=True) for c in PEOPLE.columns))
FACTS = TableFacts(("id",), {"id": ColumnFacts(not_null=True)})
ROW: Cells = (b"7", SECRET.encode(), b"DE12345678", b"33", b"Ulm")
HASH = Hashed("SHA-256", b"salt")


def codec(relation: Relation = PEOPLE, facts: TableFacts = FACTS, **rules: object) -> Codec:
    return compile_codec("shop.public.people", relation, facts, rules=ColumnRules(**rules))  # type: ignore[arg-type]


def message(kind: bytes, *rows: Cells) -> bytes:
    """An Insert, or an Update without old row."""
    return struct.pack(">cIc", kind, 5, b"N") + b"".join(map(tuple_data, rows))


def tuple_data(cells: Cells) -> bytes:
    parts = [
        b"n" if cell is None else b"u" if cell is UNCHANGED else struct.pack(">cI", b"t", len(cell)) + cell  # type: ignore[arg-type]
        for cell in cells
    ]
    return struct.pack(">H", len(cells)) + b"".join(parts)


def after(made: Codec, cells: Cells = ROW) -> dict[str, object]:
    """The row of op c; the three ways to write it must agree."""
    encoder = made.bind(1, 2)
    value = encoder.create(PREFIX, LSN_OF_ROW, cells)
    assert made.layout.careful(cells) == made.code.row(cells)
    assert encoder.record(message(b"I", cells), PREFIX, LSN_OF_ROW, "c") == (encoder.key(cells), value)
    row = row_reader(made.value_schema).record(value[5:])["after"]
    assert isinstance(row, dict)
    return row


def field(made: Codec, name: str) -> dict[str, object]:
    fields = made.value_schema["fields"][0]["type"][1]["fields"]
    (found,) = [one for one in fields if one["name"] == name]
    return found  # type: ignore[no-any-return]


def test_an_excluded_column_is_in_no_record_and_no_schema() -> None:
    made = codec(excluded=frozenset({"name", "age"}))
    assert after(made) == {"id": 7, "iban": "DE12345678", "city": "Ulm"}
    assert after(made, (b"7", None, None, None, b"Ulm")) == {"id": 7, "iban": None, "city": "Ulm"}
    assert "name" not in json.dumps(made.value_schema["fields"][0]["type"][1]["fields"]).replace('"name":', "")


def test_an_excluded_column_is_passed_by_whatever_it_holds() -> None:
    made = codec(excluded=frozenset({"age", "city"}))
    encoder = made.bind(1, 2)
    odd: Cells = (b"7", b"a", b"b", b"no number", UNCHANGED)
    wanted = encoder.create(PREFIX, LSN_OF_ROW, (*ROW[:1], b"a", b"b", None, None))
    assert encoder.record(message(b"U", odd), PREFIX, LSN_OF_ROW, "c")[1] == wanted
    assert encoder.create(PREFIX, LSN_OF_ROW, odd) == wanted
    assert encoder.unchanged(odd) is None, "a reader does not know the column"
    assert encoder.unchanged((*ROW[:1], UNCHANGED, *ROW[2:4], UNCHANGED)) == b'["name"]'


def test_columns_that_are_not_listed_are_left_out_but_for_the_key() -> None:
    made = codec(unlisted=frozenset({"id", "name", "iban", "age"}))
    assert after(made) == {"id": 7, "city": "Ulm"}


@pytest.mark.parametrize("rules", [{"excluded": frozenset({"id"})}, {"masks": {"id": HASH}}])
def test_the_key_is_neither_left_out_nor_masked(rules: dict[str, object]) -> None:
    said = r"public\.people\.id is of the table's key"
    with pytest.raises(SettingsError, match=said):
        codec(**rules)
    with pytest.raises(SettingsError, match=said):  # chunks are read in its order, and the position has the last one
        codec(FULL, key=("city",), **rules)


@pytest.mark.parametrize(
    ("mask", "column", "cell", "shown"),
    [
        (Asterisks(5), "name", SECRET.encode(), "*****"),
        (Asterisks(0), "name", SECRET.encode(), ""),
        (Asterisks(3), "name", None, "***"),
        (Truncated(8), "name", SECRET.encode(), "S3cret-W"),
        (Truncated(9), "name", SECRET.encode(), "S3cret-Wö"),
        (Truncated(40), "name", SECRET.encode(), SECRET),
        (Truncated(3), "name", None, None),
        (HASH, "name", SECRET.encode(), hashlib.sha256(b"salt" + SECRET.encode()).hexdigest()),
        (HASH, "iban", b"DE12345678", hashlib.sha256(b"saltDE12345678").hexdigest()[:10]),
        (HASH, "iban", None, None),
        (Hashed("SHA-1", b"x"), "name", b"", hashlib.sha1(b"x", usedforsecurity=False).hexdigest()),
        (Hashed("SHA3-512", b"x"), "name", b"a", hashlib.sha3_512(b"xa").hexdigest()),
    ],
)
def test_what_a_mask_shows(mask: Mask, column: str, cell: bytes | None, shown: str | None) -> None:
    cells = tuple(cell if one.name == column else was for one, was in zip(PEOPLE.columns, ROW, strict=True))
    assert after(codec(masks={column: mask}), cells)[column] == shown


@pytest.mark.parametrize("mask", [Asterisks(5), HASH, Truncated(3)])
def test_no_part_of_a_record_has_what_is_masked(mask: Mask) -> None:
    facts = TableFacts(("id",), {"id": ColumnFacts(not_null=True), "name": ColumnFacts(default=f"'{SECRET}'::text")})
    made = codec(FULL, facts, masks={"name": mask})
    encoder = made.bind(1, 2)
    written = [
        encoder.create(PREFIX, 1, ROW), encoder.read(PREFIX, 1, ROW), encoder.update(PREFIX, 1, ROW, ROW),
        encoder.delete(PREFIX, 1, ROW), encoder.delete(PREFIX, 1, ROW, key_only=True), encoder.key_json(ROW),
        *encoder.record(message(b"I", ROW), PREFIX, 1, "c"), repr(Hashed("MD5", SECRET.encode())).encode(),
    ]  # fmt: skip
    assert not any(SECRET.encode()[:6] in one for one in written if one)
    assert SECRET[:6] not in json.dumps(made.value_schema)


def test_a_bad_text_is_told_without_it() -> None:
    made = codec(masks={"name": Truncated(3)})
    with pytest.raises(DataError) as failure:
        made.bind(1, 2).create(PREFIX, 1, (b"7", b"\xffsecret", *ROW[2:]))
    assert 'column "name"' in str(failure.value)
    assert "secret" not in str(failure.value)


def test_schemas_say_what_debezium_s_say_of_masked_columns() -> None:
    made = codec(masks={"name": HASH, "city": Truncated(3), "iban": Truncated(30)})
    assert field(made, "name")["type"] == ["null", {"type": "string", "connect.parameters": {"masked": "true"}}]
    assert field(made, "city")["type"] == ["null", {"type": "string", "connect.parameters": {"truncateLength": "3"}}]
    assert field(made, "iban")["type"] == ["null", "string"], "its type is shorter"


def test_the_default_of_a_masked_column_is_not_told() -> None:
    facts = replace(FACTS, columns={"name": ColumnFacts(True, f"'{SECRET}'"), "city": ColumnFacts(False, "'x'::text")})
    made = codec(facts=facts, masks={"name": HASH, "city": Asterisks(3)})
    assert field(made, "name")["default"] == "", "a new column has to pass a BACKWARD check"
    assert field(made, "city")["default"] is None


@pytest.mark.parametrize("mask", [Asterisks(5), HASH, Truncated(3)])
def test_a_value_that_was_not_sent_stays_the_placeholder(mask: Mask) -> None:
    made = codec(masks={"name": mask})
    cells: Cells = (b"7", UNCHANGED, *ROW[2:])
    row = row_reader(made.value_schema).record(made.bind(1, 2).update(PREFIX, 1, cells)[5:])["after"]
    assert row["name"] == "__debezium_unavailable_value"
    assert made.bind(1, 2).unchanged(cells) == b'["name"]'


def test_a_null_in_a_masked_column_that_the_catalogue_calls_not_null_widens() -> None:
    facts = TableFacts(("id",), {"name": ColumnFacts(not_null=True)})
    with pytest.raises(WidenError):
        codec(facts=facts, masks={"name": Asterisks(2)}).bind(1, 2).create(PREFIX, 1, (b"1", None, *ROW[2:]))


def test_only_text_can_be_masked() -> None:
    with pytest.raises(SettingsError, match=r"public.people.age is not text.*\n.*columns_as_text"):
        codec(masks={"age": HASH})
    rules = ColumnRules(masks={"age": Asterisks(2)})
    assert after(compile_codec("t", PEOPLE, FACTS, text=frozenset({"age"}), rules=rules))["age"] == "**"


def test_a_tsvector_is_masked_as_the_text_that_it_is() -> None:
    words = replace(PEOPLE, columns=(*PEOPLE.columns[:1], Column("name", 3614), *PEOPLE.columns[2:]))
    shown = {"type": "string", "connect.parameters": {"truncateLength": "3"}}
    made = codec(words, masks={"name": Truncated(3)})
    assert after(made)["name"] == SECRET[:3]
    assert field(made, "name")["type"] == ["null", shown]
    assert after(codec(words, masks={"name": Asterisks(2)}))["name"] == "**"


def test_other_columns_can_be_the_key() -> None:
    flagged = replace(PEOPLE, columns=(*(replace(c, key=True) for c in PEOPLE.columns[:3]), *PEOPLE.columns[3:]))
    facts = TableFacts(("id", "name", "iban"), {})
    made = codec(flagged, facts, key=("iban", "id"))
    encoder = made.bind(1, 2)
    assert encoder.key_json(ROW) == b'{"iban":"DE12345678","id":7}'
    assert encoder.own_key == ("id", "name", "iban")
    assert encoder.shares_keys
    assert not codec(flagged, facts, key=("iban", "id", "name")).bind(1, 2).shares_keys
    old: Cells = (*ROW[:3], None, None)
    before = row_reader(made.value_schema).record(encoder.delete(PREFIX, 1, old, key_only=True)[5:])["before"]
    assert before == {"id": 7, "name": SECRET, "iban": "DE12345678", "age": None, "city": None}
    assert encoder.key_only_unchanged == b'["age","city"]'


@pytest.mark.parametrize(
    "rules",
    [
        {"excluded": frozenset({"iban"})},
        {"unlisted": frozenset({"iban"})},
        {"masks": {"iban": HASH}},
        {"masks": {"iban": HASH}, "key": ("id",)},
    ],
)
def test_a_unique_index_of_a_column_that_is_hidden_is_no_key(rules: dict[str, object]) -> None:
    facts = TableFacts(
        columns={name: ColumnFacts(not_null=True) for name in ("id", "iban")}, unique_indexes=(("iban",),)
    )
    made = codec(FULL, facts, **rules)
    assert made.own_key == ()
    assert made.key_columns == rules.get("key", ())
    encoder = made.bind(1, 2)
    assert ROW[2] not in encoder.create(PREFIX, LSN_OF_ROW, ROW) + (encoder.key(ROW) or b"")
    assert codec(FULL, facts, excluded=frozenset({"name"})).own_key == ("iban",)
    assert codec(FULL, replace(facts, unique_indexes=(("iban",), ("id",))), **rules).own_key == ("id",)


def test_a_key_that_old_rows_do_not_have_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"old city of table public.people.*\n.*REPLICA IDENTITY FULL"):
        codec(key=("id", "city"))
    with pytest.raises(SettingsError, match="does not have town"):
        codec(key=("town",))
    made = codec(FULL, TableFacts(), key=("city",))
    assert made.bind(1, 2).key((*ROW[:4], None)) == b"\x00\x00\x00\x00\x01\x00", (
        "a key may be null where the column may"
    )


def test_the_same_codec_is_made_again_in_another_process() -> None:
    made = codec(excluded=frozenset({"age"}), masks={"name": HASH})
    again = made.again().bind(1, 2)
    assert isinstance(again, Encoder)
    assert again.create(PREFIX, 1, ROW) == made.bind(1, 2).create(PREFIX, 1, ROW)


TEXT = st.none() | st.just(UNCHANGED) | st.binary(max_size=12) | st.text(max_size=12).map(str.encode)


@settings(deadline=None)  # it compiles
@given(
    cells=st.tuples(st.integers(0, 10**6).map(lambda n: str(n).encode()), TEXT, TEXT, st.none() | st.just(b"5"), TEXT),
    excluded=st.frozensets(st.sampled_from(["name", "iban", "age", "city"])),
    masks=st.dictionaries(
        st.sampled_from(["name", "iban", "city"]), st.sampled_from([Asterisks(3), Truncated(2), HASH]), max_size=3
    ),
)
def test_the_fast_way_and_the_careful_way_agree(cells: Cells, excluded: frozenset[str], masks: dict[str, Mask]) -> None:
    made = codec(excluded=excluded, masks=masks)
    encoder = made.bind(1, 2)
    try:
        fast = encoder.record(message(b"I", cells), PREFIX, LSN_OF_ROW, "c")
    except FAILURES:
        return  # the plain way takes it then
    assert made.layout.careful(cells) == made.code.row(cells)
    assert fast == (encoder.key(cells), encoder.create(PREFIX, LSN_OF_ROW, cells))
