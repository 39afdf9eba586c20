"""What is captured: which tables, which of their columns and how, which operations. Pure.

Entries are regular expressions that match a whole name, `schema.table` or `schema.table.column`, like Debezium's. An
entry that equals the name matches, too (`public.price$`). Matching is case-sensitive, like PostgreSQL's names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from schemas.model.errors import SettingsError
from schemas.model.relation import Relation
from schemas.writing.column_rules import ColumnRules, Mask

_PLAIN: Final = re.compile(r"[\w.$ -]+")
"""An entry that can only mean the name that it spells."""


class Pattern:
    """One entry of a list."""

    def __init__(self, entry: str) -> None:
        self.entry = entry
        self._expression = re.compile(entry)

    def matches(self, name: str) -> bool:
        """Whether the entry matches this name."""
        return name == self.entry or self._expression.fullmatch(name) is not None


def patterns(entries: Iterable[str]) -> tuple[Pattern, ...]:
    """The entries of a list."""
    return tuple(map(Pattern, entries))


def unmatched(entries: Iterable[Pattern], names: Iterable[str]) -> list[str]:
    """The entries that match none of the names."""
    names = list(names)
    return [one.entry for one in entries if not any(map(one.matches, names))]


def any_matches(entries: Sequence[Pattern], name: str) -> bool:
    """Whether one of the entries matches."""
    return any(one.matches(name) for one in entries)


class Lists(NamedTuple):
    """The lists of the settings. `masks`: (setting, entry, mask). `keys`: (tables, columns)."""

    table_include_list: Sequence[str] = ()
    table_exclude_list: Sequence[str] = ()
    column_include_list: Sequence[str] = ()
    column_exclude_list: Sequence[str] = ()
    masks: Sequence[tuple[str, str, Mask]] = ()
    keys: Sequence[tuple[str, tuple[str, ...]]] = ()
    skipped_operations: Sequence[str] = ()


class Selection:
    """Applies the lists."""

    def __init__(
        self,
        lists: Lists = Lists(),  # noqa: B008  a tuple
        propagate_source_type: Sequence[str] = (),
        comments: bool = False,
    ) -> None:
        """Columns that match `propagate_source_type` have their PostgreSQL type in the schema. `comments`: so has every
        column its comment."""
        self._typed = patterns(propagate_source_type)
        self._comments = comments
        self._included = patterns(lists.table_include_list)
        self._excluded = patterns(lists.table_exclude_list)
        self._columns_included = patterns(lists.column_include_list)
        self._columns_excluded = patterns(lists.column_exclude_list)
        self._masks = [(setting, Pattern(entry), mask) for setting, entry, mask in lists.masks]
        self._keys = [(Pattern(tables), columns) for tables, columns in lists.keys]
        self.skipped = frozenset(lists.skipped_operations)
        """The ops, out of c, u, d and t, that become no record."""

    @property
    def every_table(self) -> bool:
        """Whether the settings leave no table out."""
        return not self._included and not self._excluded

    @property
    def named(self) -> list[str]:
        """The tables that the include list names one by one, in order."""
        return sorted(one.entry for one in self._included if _PLAIN.fullmatch(one.entry) and self.table(one.entry))

    @property
    def listed(self) -> bool:
        """Whether there is an include list."""
        return bool(self._included)

    def table(self, name: str) -> bool:
        """Whether a table (schema.table) is captured, if it is published."""
        return (not self._included or any_matches(self._included, name)) and not any_matches(self._excluded, name)

    def missing(self, published: Iterable[str]) -> list[str]:
        """The entries of the include list that match no published table."""
        return sorted(unmatched(self._included, published))

    @property
    def has_rules(self) -> bool:
        """Whether a setting changes the columns of any table."""
        return bool(self._columns_included or self._columns_excluded or self._masks or self._keys or self._typed)

    def rules(self, relation: Relation) -> ColumnRules:
        """What the settings say about a table's columns. SettingsError if two entries contradict each other."""
        names = {column.name: f"{relation.table}.{column.name}" for column in relation.columns}
        included, excluded = self._columns_included, self._columns_excluded
        return ColumnRules(
            excluded=frozenset(name for name, full in names.items() if any_matches(excluded, full)),
            unlisted=frozenset(name for name, full in names.items() if included and not any_matches(included, full)),
            masks=dict(self._mask_of(names)),
            key=self._key(relation.table),
            typed=frozenset(name for name, full in names.items() if any_matches(self._typed, full)),
            commented=self._comments,
        )

    def _mask_of(self, names: Mapping[str, str]) -> Iterator[tuple[str, Mask]]:
        for name, full in names.items():
            found = [(setting, mask) for setting, pattern, mask in self._masks if pattern.matches(full)]
            if len(found) > 1:
                settings = " and of ".join(setting for setting, _ in found)
                raise SettingsError(f"column {full} matches entries of {settings}", "leave one of them")
            yield from [(name, mask) for _, mask in found]

    def _key(self, table: str) -> tuple[str, ...]:
        found = [columns for pattern, columns in self._keys if pattern.matches(table)]
        if len(found) > 1:
            raise SettingsError(f"message_key_columns has {len(found)} entries for table {table}", "leave one of them")
        return found[0] if found else ()

    def unused(self, relations: Iterable[Relation]) -> list[str]:
        """`setting: entry` for each entry on columns or keys that matches nothing in these tables."""
        relations = list(relations)
        columns = [f"{one.table}.{column.name}" for one in relations for column in one.columns]
        said = [("column_include_list", one) for one in self._columns_included]
        said += [("column_exclude_list", one) for one in self._columns_excluded]
        said += [("column_propagate_source_type", one) for one in self._typed]
        said += [(setting, one) for setting, one, _ in self._masks]
        tables = [one.table for one in relations]
        lost = [f"{setting}: {one.entry}" for setting, one in said if unmatched([one], columns)]
        return lost + [f"message_key_columns: {one.entry}" for one, _ in self._keys if unmatched([one], tables)]

    def check_used(self, relations: Iterable[Relation]) -> None:
        """SettingsError if an entry matches nothing in these tables."""
        unused = self.unused(relations)
        if unused:
            raise SettingsError(f"no captured column or table matches {'; '.join(unused)}", "correct the entry")


def parse_key(entry: str) -> tuple[str, tuple[str, ...]]:
    """(tables, columns) of `public.lines:order_id,number`. ValueError for any other form."""
    tables, colon, columns = entry.rpartition(":")
    names = tuple(name.strip() for name in columns.split(","))
    if not colon or not tables or not all(names) or len(set(names)) < len(names):
        raise ValueError(f"{entry}: write schema.table:column,column")
    return tables.strip(), names
