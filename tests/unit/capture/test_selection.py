"""Which tables and columns the lists mean."""

import pytest

from capture.selection import Lists, Selection, parse_key
from schemas.model.errors import SettingsError
from schemas.model.relation import Column, Relation
from schemas.writing.column_rules import Asterisks, Truncated

PEOPLE = Relation(5, "public", "people", "d", tuple(Column(name, 25) for name in ("id", "name", "mail")))


@pytest.mark.parametrize(
    ("entry", "table", "matches"),
    [
        ("public.orders", "public.orders", True),
        ("public.orders", "public.orders_old", False),
        ("public.orders", "old_public.orders", False),
        (r"public\.order.*", "public.order_lines", True),
        (r"public\.order.*", "secret.public.orders", False),
        ("public.Orders", "public.orders", False),
        ("(?i)public.Orders", "public.orders", True),
        ("public.price$", "public.price$", True),
        ("a.b|c.d", "c.d", True),
        ("a.b|c.d", "c.dx", False),
    ],
)
def test_an_entry_means_whole_names(entry: str, table: str, matches: bool) -> None:
    assert Selection(Lists(table_include_list=[entry])).table(table) is matches
    assert Selection(Lists(table_exclude_list=[entry])).table(table) is not matches


def test_without_lists_all_is_captured() -> None:
    every = Selection()
    assert every.table("public.orders")
    assert every.every_table
    assert not every.has_rules
    assert every.missing([]) == []


def test_entries_that_match_nothing_are_told() -> None:
    some = Selection(Lists(table_include_list=["public.orders", r"shop\..*", "public.lines"]))
    assert some.missing(["public.orders", "public.x"]) == ["public.lines", r"shop\..*"]
    assert some.named == ["public.lines", "public.orders"]


def test_columns_of_both_kinds_of_list() -> None:
    exclude = Selection(Lists(column_exclude_list=[r".*\.mail", "public.other.name"])).rules(PEOPLE)
    assert exclude.excluded == {"mail"}
    assert not exclude.unlisted
    include = Selection(Lists(column_include_list=["public.people.name"])).rules(PEOPLE)
    assert include.unlisted == {"id", "mail"}
    assert not include.excluded


def test_a_column_has_one_mask() -> None:
    masks = [("a_setting", r"public\.people\.(name|mail)", Asterisks(3)), ("b_setting", ".*name", Truncated(2))]
    assert Selection(Lists(masks=masks[:1])).rules(PEOPLE).masks == {"name": Asterisks(3), "mail": Asterisks(3)}
    with pytest.raises(SettingsError, match=r"public.people.name matches entries of a_setting and of b_setting"):
        Selection(Lists(masks=masks)).rules(PEOPLE)


def test_a_table_has_one_key() -> None:
    keys = [parse_key(r"public\.p.*: name, mail"), parse_key("public.people:id")]
    assert Selection(Lists(keys=keys[:1])).rules(PEOPLE).key == ("name", "mail")
    with pytest.raises(SettingsError, match=r"2 entries for table public\.people"):
        Selection(Lists(keys=keys)).rules(PEOPLE)


def test_an_entry_that_no_column_meets_is_told_with_its_setting() -> None:
    selection = Selection(
        Lists(
            column_exclude_list=["public.people.mail", "public.people.mial"],
            masks=[("column_mask_hash", r"public\.poeple\..*", Asterisks(1))],
            keys=[parse_key("public.lines:id"), parse_key("public.people:id")],
        )
    )
    assert selection.has_rules
    assert selection.unused([PEOPLE]) == [
        "column_exclude_list: public.people.mial",
        r"column_mask_hash: public\.poeple\..*",
        "message_key_columns: public.lines",
    ]


@pytest.mark.parametrize("entry", ["public.lines", ":id", "public.lines:", "public.lines:id,,x", "public.lines:id,id"])
def test_a_key_that_is_none_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"write schema\.table:column,column"):
        parse_key(entry)


def test_a_group_in_the_table_of_a_key_is_no_separator() -> None:
    assert parse_key("public.(?:a|b):id") == ("public.(?:a|b)", ("id",))
