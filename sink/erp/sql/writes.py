"""Writes steps into the ERP's tables: all those of one kind and verb together, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, Final

import sqlalchemy as sa

from schemas.model.errors import OrdertapError
from sink.erp.contract import ConflictError, HoldError, NotDone, Step, StepResult, TypedIn
from sink.erp.kinds import BY_HAND, ErpRecord, ErpRef, Fields, Milestone, differing, not_kept
from sink.erp.sql import many
from sink.erp.sql.connections import ErpDatabase
from sink.erp.sql.mapping import DocumentTable, LinkColumn
from sink.erp.sql.reads import ErpRow, by_key, link_target, look_up, typed

_MISSING: Final = {
    "account": ("its account is not in the ERP", "see what holds the customer"),
    "order": ("its order is not in the ERP", "see what holds the order"),
    "order_line": ("a returned line is not on the ERP's order", "compare both orders, then `sink retry`"),
}


class UnkeptError(OrdertapError):
    """The ERP did not keep what was written, so nothing of this transaction may stay. `results`: by place in the
    call."""

    def __init__(self, results: Mapping[int, StepResult]) -> None:
        super().__init__("the ERP stored something other than it was given", "no action needed: see the documents")
        self.results = results


Numbered = tuple[int, Step]


@dataclass(frozen=True)
class Links:
    """Values of columns that refer to other tables, by link and key."""

    values: Mapping[str, Mapping[str, Any]]

    def of(self, links: Mapping[Any, LinkColumn], fields: Fields) -> dict[str, Any]:
        """Column → value, for the links among the fields. HoldError if a link's target does not exist."""
        found: dict[str, Any] = {}
        for name, link in links.items():
            if name not in fields:
                continue
            ref = fields[name]
            value = self.values[name].get(ref.external) if isinstance(ref, ErpRef) else None
            if value is None and ref is not None:
                message, hint = _MISSING[name]
                raise HoldError(message, hint, "master data")
            found[link.column] = value
        return found


class Writing:
    """The steps of one kind and one verb: first `write`, then `read_back`."""

    def __init__(self, database: ErpDatabase, connection: sa.Connection, steps: Sequence[Numbered]) -> None:
        self._database = database
        self._connection = connection
        self._steps = steps
        self._kind = steps[0][1].ref.kind
        self._verb = steps[0][1].verb
        self._document, self._table = database.document(self._kind)
        self._lines = self._document.lines
        self._state = cache(partial(_state, self._document))
        self._line_table = database.table(self._lines.table) if self._lines else None
        self._written: list[Numbered] = []

    def write(self) -> dict[int, StepResult]:
        """Writes the steps. Returns the results of those that it does not write, by place in the call."""
        there = self._there()
        results: dict[int, StepResult] = {}
        todo: list[Numbered] = []
        for number, step in self._steps:
            known = _known(step, there.get(step.ref.external))
            if known is None:
                todo.append((number, step))
            else:
                results[number] = known
        if todo and self._verb == "create":
            self._written = self._create(todo, results)
        elif todo:
            self._written = self._change(todo, there, results)
        return results

    def _there(self) -> dict[str, ErpRow]:
        """The documents of the steps, locked, by our keys, including those that will get one."""
        keys = {step.ref.external: step.adopts.document if step.adopts else "" for _, step in self._steps}
        found = by_key(self._database, self._connection, self._kind, {*keys, *filter(None, keys.values())}, lock=True)
        return {key: found[one] for key, hand in keys.items() for one in (hand, key) if one in found}

    def _create(self, todo: Sequence[Numbered], results: dict[int, StepResult]) -> list[Numbered]:
        """Inserts heads, then their lines."""
        heads, lines, links = {}, {}, self._links(todo)
        for number, step in todo:
            try:
                head, rows = self._new_head(step, links), self._new_lines(step, links)
            except HoldError as error:
                results[number] = NotDone(error)
                continue
            heads[step.ref.external], lines[step.ref.external] = head, rows
        written = [(number, step) for number, step in todo if step.ref.external in heads]
        if not written:
            return []
        many.insert(self._connection, self._table, list(heads.values()))
        if self._lines is not None and self._line_table is not None:
            key, row_id = self._document.key, self._document.id
            found = look_up(self._connection, self._table, (key, row_id), key, row_id, heads)
            ids = {row[key]: row[row_id] for row in found}
            of_heads = [{**row, self._lines.parent: ids[ours]} for ours in heads for row in lines[ours]]
            many.insert(self._connection, self._line_table, of_heads)
        return written

    def _change(
        self, todo: Sequence[Numbered], there: Mapping[str, ErpRow], results: dict[int, StepResult]
    ) -> list[Numbered]:
        """Updates heads and lines of existing documents."""
        links = self._links(todo) if self._verb == "amend" else Links({})
        heads, written, edits = [], [], _LineEdits([], [], [])
        for number, step in todo:
            row, of_lines = there[step.ref.external], _LineEdits([], [], [])
            try:
                head = self._changed_head(step, row, links)
                if self._verb == "amend":
                    self._change_lines(step, row, links, of_lines)
                elif step.adopts:
                    self._name_lines(step.adopts, row, of_lines)
            except HoldError as error:
                results[number] = NotDone(error)
                continue
            heads.append(head)
            edits.add(of_lines)
            written.append((number, step))
        many.update(self._connection, self._table, self._document.id, heads)
        if self._lines is not None and self._line_table is not None:
            edits.write(self._connection, self._line_table, self._lines.id)
        return written

    def read_back(self) -> dict[int, StepResult]:
        """The documents as the ERP has them now, by place in the call; UnkeptError if it keeps another value."""
        keys = [step.ref.external for _, step in self._written]
        found = by_key(self._database, self._connection, self._kind, keys) if keys else {}
        results: dict[int, StepResult] = {}
        unkept: dict[int, StepResult] = {}
        for number, step in self._written:
            row = found.get(step.ref.external)
            wrong = "it is not there" if row is None else self._wrong(step, row)
            if wrong or row is None:
                hint = "make the ERP's columns accept the shop's value, or fix it in the shop, then `sink retry`"
                unkept[number] = NotDone(HoldError(f"the ERP did not store it as sent: {wrong}", hint, "data"))
            else:
                results[number] = row.observed
        if unkept:
            raise UnkeptError(unkept)
        return results

    def _wrong(self, step: Step, row: ErpRow) -> str:
        """Where the ERP kept something else than was wanted; '' if nowhere."""
        if step.verb in ("create", "adopt", "amend"):
            return not_kept(step.want, row.observed.record)
        # If the ERP has no state for the goal, the state of the last milestone before it was written.
        written, reached = self._document.milestones[self._state(step.goal)], row.observed.milestone
        # A trigger of the ERP may take a document further at once.
        further = step.verb == "advance" and reached and reached is not Milestone.CANCELLED and written.before(reached)
        return "" if reached is written or further else f"it is {row.observed.state}"

    def _new_head(self, step: Step, links: Links) -> dict[str, Any]:
        values = _values(self._document.fields, step.want.fields, self._table)
        values |= {self._document.key: step.ref.external, self._document.revision: step.key}
        values |= links.of(self._document.links, step.want.fields)
        if self._document.status:
            values[self._document.status] = self._state(step.goal)
        return values

    def _changed_head(self, step: Step, row: ErpRow, links: Links) -> dict[str, Any]:
        values: dict[str, Any] = {self._document.id: row.head[self._document.id], self._document.revision: step.key}
        if self._verb == "amend":
            names = differing(step.want.fields, row.observed.record.fields, self._document.fields)
            values |= _values({name: self._document.fields[name] for name in names}, step.want.fields, self._table)
            values |= _moved(links.of(self._document.links, step.want.fields), row.head)
            if self._document.status and row.observed.milestone and row.observed.milestone.before(step.goal):
                values[self._document.status] = self._state(step.goal)
        elif self._verb == "adopt":
            values[self._document.key] = step.ref.external
        elif self._document.status is None:
            raise HoldError(f"this ERP cannot {self._verb} it", "do it in the ERP by hand")
        else:
            values[self._document.status] = self._state(step.goal)
        return values

    def _name_lines(self, adopts: TypedIn, row: ErpRow, edits: _LineEdits) -> None:
        """Gives our keys to lines that have none."""
        lines = self._lines
        for (_, key), line in row.lines.items():
            if lines is not None and key in adopts.children:
                edits.changed.append({lines.id: line[lines.id], lines.key: adopts.children[key]})

    def _new_lines(self, step: Step, links: Links) -> list[dict[str, Any]]:
        """New lines, without the link to their head."""
        return [self._new_line(step.ref, place, fields, None, links) for place, fields in _children(step.want).items()]

    def _new_line(
        self, ref: ErpRef, place: tuple[Any, str], fields: Fields, row_id: Any, links: Links
    ) -> dict[str, Any]:
        lines, table = self._lines, self._line_table
        if lines is None or table is None:
            return {}
        values = _values(lines.fields, fields, table) | links.of(lines.links, fields)
        return values | {lines.key: ref.child(*place).external, lines.parent: row_id}

    def _change_lines(self, step: Step, row: ErpRow, links: Links, edits: _LineEdits) -> None:
        lines, table = self._lines, self._line_table
        if lines is None or table is None:
            return
        wanted = _children(step.want)
        for place, line in row.lines.items():
            if place not in wanted:
                edits.gone.append(line[lines.id])
        for place, fields in wanted.items():
            now = row.lines.get(place)
            if now is None:
                edits.new.append(self._new_line(step.ref, place, fields, row.head[self._document.id], links))
                continue
            names = differing(fields, row.observed.record.parts[place[0]][place[1]], lines.fields)
            values = _values({name: lines.fields[name] for name in names}, fields, table)
            values |= _moved(links.of(lines.links, fields), now)
            if values:
                edits.changed.append({lines.id: now[lines.id]} | values)

    def _links(self, todo: Sequence[Numbered]) -> Links:
        """Looks up the links, with one query each however many steps there are."""
        every: list[tuple[Mapping[Any, LinkColumn], Iterable[Fields]]] = [
            (self._document.links, [step.want.fields for _, step in todo])
        ]
        if self._lines is not None:
            children = [fields for _, step in todo for fields in _children(step.want).values()]
            every.append((self._lines.links, children))
        found = {}
        for links, rows in every:
            for name, link in links.items():
                refs = {ref.external for ref in (fields.get(name) for fields in rows) if isinstance(ref, ErpRef)}
                found[name] = self._linked(name, link, refs)
        return Links(found)

    def _linked(self, name: str, link: LinkColumn, keys: set[str]) -> dict[str, Any]:
        """Our key, or the ERP's reference of a typed-in document → the link's value."""
        target = link_target(self._database.mapping, name)
        table = self._database.table(target.table)
        by = link.by or target.id
        ours = [key for key in keys if not key.startswith(BY_HAND)]
        found: dict[str, Any] = {}
        if ours:
            rows = look_up(self._connection, table, (target.key, by), target.key, target.id, ours)
            found = {str(row[target.key]): row[by] for row in rows}
        for key in keys.difference(ours):  # a collective account
            row_id = typed(table.c[target.id], key.removeprefix(BY_HAND))
            found[key] = self._connection.execute(sa.select(table.c[by]).where(table.c[target.id] == row_id)).scalar()
        return found


@dataclass
class _LineEdits:
    """The line edits of many documents together."""

    new: list[dict[str, Any]]
    changed: list[dict[str, Any]]
    gone: list[Any]

    def add(self, other: _LineEdits) -> None:
        """Adds the edits of one more document."""
        self.new += other.new
        self.changed += other.changed
        self.gone += other.gone

    def write(self, connection: sa.Connection, table: sa.Table, row_id: str) -> None:
        if self.gone:
            connection.execute(sa.delete(table).where(table.c[row_id].in_(self.gone)))
        if self.changed:
            many.update(connection, table, row_id, self.changed)
        if self.new:
            many.insert(connection, table, self.new)


def _known(step: Step, row: ErpRow | None) -> StepResult | None:
    """The result of a step if it is known without doing it; None if it is still to be done."""
    if row is None:
        if step.verb == "create":
            return None
        if step.verb == "adopt":
            return NotDone(ConflictError("it is gone, or has a key by now"))
        return NotDone(HoldError("it is no longer in the ERP", "restore it there, then `sink retry`"))
    key = row.observed.key
    if row.ref == step.ref and step.verb in ("create", "adopt"):
        mine = key == step.key and not not_kept(step.want, row.observed.record)
        return row.observed if mine else NotDone(ConflictError(f"the {step.ref.kind} was made meanwhile"))
    if key == step.key and row.ref == step.ref:
        return row.observed
    if key > step.key and row.ref == step.ref:
        return NotDone(ConflictError("a later step was done already"))
    if step.before is None or step.before.stamp != row.observed.stamp:
        return NotDone(ConflictError("it changed in the ERP meanwhile"))
    return None


def _children(want: ErpRecord) -> dict[tuple[Any, str], Fields]:
    return {(part, key): fields for part, rows in want.parts.items() for key, fields in rows.items()}


def _moved(values: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The links that change."""
    return {column: value for column, value in values.items() if now[column] != value}


def _state(document: DocumentTable, goal: Milestone) -> str:
    """The ERP's state for a milestone, or for the last milestone before it that has one."""
    if goal is not Milestone.CANCELLED:
        for milestone in reversed([one for one in Milestone if one is goal or one.before(goal)]):
            if (state := document.state_of(milestone)) is not None:
                return state
    found = document.state_of(goal)
    if found is None:
        raise HoldError(f"this ERP has no state for `{goal}`", "name one in `milestones` of the mapping")
    return found


def _values(columns: Mapping[str, str], fields: Fields, table: sa.Table) -> dict[str, Any]:
    """The values to write: mapped fields only. Times are in UTC if the column has no zone."""
    values: dict[str, Any] = {column: fields[name] for name, column in columns.items() if name in fields}
    for column, value in values.items():
        if isinstance(value, datetime):
            zoned = value if value.tzinfo else value.replace(tzinfo=UTC)
            aware = bool(getattr(table.c[column].type, "timezone", False))
            values[column] = zoned if aware else zoned.astimezone(UTC).replace(tzinfo=None)
    return values
