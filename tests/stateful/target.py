"""The ERP in memory as the contract suite's Target, and its clerk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

from sink.erp.contract import Erp
from sink.erp.kinds import PARTS, ErpRecord, ErpRef, Fields, Milestone, PartKind, Value
from tests.erp_contract.target import Can, Hook
from tests.stateful.erp import Desk, Paper, ScriptedErp, by_hand


class DeskClerk:
    """A person at the ERP's screens. `undo` takes back changes that no step has overwritten."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def edits(self, ref: ErpRef, field: str, value: Value, key: str | None = None) -> None:
        record = self._desk.papers[ref].record
        if key is None:
            self._write(ref, replace(record, fields={**record.fields, field: value}))
        else:
            lines = record.parts["line"]
            self._lines(ref, {**lines, key: {**lines[key], field: value}})

    def edits_own(self, ref: ErpRef) -> None:
        self._desk.own[ref] = 500

    def adds_line(self, order: ErpRef) -> None:
        gift: Fields = {"kind": "item", "name": "gift", "quantity": Decimal(1), "gross": Decimal(0)}
        self._lines(order, {**self._desk.papers[order].record.parts["line"], by_hand(self._desk): gift})

    def drops_line(self, order: ErpRef, key: str) -> None:
        lines = self._desk.papers[order].record.parts["line"]
        self._lines(order, {other: row for other, row in lines.items() if other != key})

    def sets(self, ref: ErpRef, milestone: Milestone) -> None:
        self._put(ref, replace(self._desk.papers[ref], milestone=milestone))

    def sets_unknown(self, ref: ErpRef) -> None:
        self._put(ref, replace(self._desk.papers[ref], milestone=None))

    def deletes(self, ref: ErpRef) -> None:
        with self._desk.lock:
            self._desk.put(ref, None)

    def takes_back(self, order: ErpRef, key: str, quantity: Decimal) -> None:
        row: Fields = {"order_line": order.child("line", key), "quantity": quantity, "reason": None}
        self._new(ErpRecord("return", {"order": order, "number": "by hand"}, {"line": {"1": row}}))

    def gives_back(self, order: ErpRef, gross: Decimal) -> None:
        self._new(ErpRecord("refund", {"order": order, "number": "by hand", "gross": gross}))

    def types_in(self, number: str) -> None:
        self._new(ErpRecord("customer", {"number": number, "name": "Phone"}))

    def forgets(self, ref: ErpRef) -> ErpRef:
        with self._desk.lock:
            paper = self._desk.papers[ref]
            rows = [row for part in paper.record.parts.values() for row in part.values()]
            parts: dict[PartKind, dict[str, Fields]] = {part: {} for part in paper.record.parts}
            for row in rows:
                parts[PARTS[ref.kind][0]][by_hand(self._desk)] = row
            by = ErpRef(ref.kind, by_hand(self._desk))
            self._desk.put(by, replace(paper, record=replace(paper.record, parts=parts), key=0, begun=0))
            self._desk.put(ref, None)
            return by

    def undo(self) -> None:
        """Sets each document that a clerk touched last to what the last step wrote, and cancels typed-in ones."""
        left: dict[ErpRef, Paper] = {one.ref: one.paper for one in self._desk.effects if one.step and one.paper}
        last = {one.ref: one for one in self._desk.effects}
        for ref, effect in last.items():
            if effect.step is not None:
                continue
            if ref in left:
                newest = max(one.paper.version for one in self._desk.effects if one.ref == ref and one.paper)
                with self._desk.lock:
                    self._desk.put(ref, replace(left[ref], version=newest + 1))
            elif ref in self._desk.papers:
                self.sets(ref, Milestone.CANCELLED)

    def _new(self, record: ErpRecord) -> None:
        with self._desk.lock:
            external = by_hand(self._desk)
            self._desk.put(ErpRef(record.kind, external), Paper(record, Milestone.CONFIRMED, self._desk.serial))

    def _lines(self, ref: ErpRef, lines: Mapping[str, Fields]) -> None:
        record = self._desk.papers[ref].record
        parts: Mapping[PartKind, Mapping[str, Fields]] = {**record.parts, "line": lines}
        self._write(ref, replace(record, parts=parts))

    def _write(self, ref: ErpRef, record: ErpRecord) -> None:
        self._put(ref, replace(self._desk.papers[ref], record=record))

    def _put(self, ref: ErpRef, paper: Paper) -> None:
        with self._desk.lock:
            self._desk.put(ref, replace(paper, version=paper.version + 1))


class DeskTarget:
    """An empty ERP with the items A and B."""

    can = Can()

    def __init__(self) -> None:
        self._desk = Desk()
        self.clerk = DeskClerk(self._desk)
        self._hooks: list[Hook] = []

    def adapter(self, timeout: float = 20.0) -> Erp:
        return ScriptedErp(self._desk, self._moment)

    def _moment(self, moment: str) -> None:
        for hook in self._hooks:
            hook("before" if moment == "before" else "after")

    def content(self) -> Mapping[str, Any]:
        return {"papers": dict(self._desk.papers), "own": dict(self._desk.own)}

    @contextmanager
    def hooked(self, hook: Hook) -> Iterator[None]:
        self._hooks.append(hook)
        try:
            yield
        finally:
            self._hooks.remove(hook)

    @contextmanager
    def blocked(self, ref: ErpRef) -> Iterator[None]:
        self._desk.blocked.add(ref)
        yield
        self._desk.blocked.discard(ref)

    @contextmanager
    def lacking(self) -> Iterator[str]:
        self._desk.lacks = "module sales"
        yield "module sales"
        self._desk.lacks = ""

    def copied(self) -> None:
        self._desk.identity = "erp-2"
