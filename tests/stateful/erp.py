"""An ERP in memory that keeps the contract: with documents, calls, a clock and a clerk.

It does what real ERPs do and tables in a database do not: it makes a new order in two calls (a draft, then its goal),
each in a transaction of its own, so a step can be done in part; a call that has reached it may take effect up to
`SETTLES` seconds after its deadline; it rounds what it cannot keep. `effects` has what it did, in order, so that a test
can judge each change.

It passes tests/erp_contract/ like every adapter. Its faults come from outside (unruly.py): an ERP that breaks the
contract by itself would prove nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple, get_args

from schemas.model.errors import SettingsError
from sink.erp.contract import (
    Abilities,
    Checked,
    ConflictError,
    Found,
    HoldError,
    HowFar,
    KeyPage,
    Moved,
    NotDone,
    Observed,
    Page,
    RetryError,
    Step,
    StepProgress,
    StepResult,
    StopError,
    Verb,
)
from sink.erp.kinds import BY_HAND, ErpRecord, ErpRef, Fields, Kind, Milestone, PartKind, Value, not_kept

SETTLES: Final = 30.0
_CENT, _SMALL = Decimal("0.01"), Decimal("0.0001")
_ZERO = Decimal(0)
_MONEY: Final = frozenset({"net", "tax", "gross", "unit_price", "discount", "paid", "amount"})
_HEAD: Final = frozenset({"number", "name", "email", "account", "order", "sku", "kind"})
_NO_MORE = HoldError("it is no longer in the ERP", "restore it there, then `sink retry`")


class LateError(Exception):
    """A call's deadline has passed."""


@dataclass(frozen=True)
class Paper:
    """A document. `key`: of the last step done; `begun`: of the last step of which a call was done; `serial`: its place
    among all; `version`: changes with each change."""

    record: ErpRecord
    milestone: Milestone | None
    serial: int
    key: int = 0
    begun: int = 0
    version: int = 1


class Effect(NamedTuple):
    """One change of a document, with its step, or None for a clerk's."""

    ref: ErpRef
    step: Step | None
    paper: Paper | None


@dataclass
class Desk:
    """The ERP's data and clock, shared by all adapters. `ahead`: seconds ahead of real time."""

    items: set[str] = field(default_factory=lambda: {"A", "B"})
    papers: dict[ErpRef, Paper] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)
    own: dict[ErpRef, int] = field(default_factory=dict)  # fields of the ERP itself
    blocked: set[ErpRef] = field(default_factory=set)
    identity: str = "erp-1"
    lacks: str = ""
    ahead: timedelta = timedelta()
    lock: threading.RLock = field(default_factory=threading.RLock)
    serial: int = 0

    def clock(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def put(self, ref: ErpRef, paper: Paper | None, step: Step | None = None) -> None:
        """Writes or deletes a document."""
        if paper is None:
            del self.papers[ref]
        else:
            self.papers[ref] = paper
        self.effects.append(Effect(ref, step, paper))

    def next_serial(self) -> int:
        self.serial += 1
        return self.serial


class ScriptedErp:
    """The adapter of one process. `moment` is called before and after each write and commit of a step."""

    def __init__(self, desk: Desk, moment: Callable[[str], None] = lambda _: None) -> None:
        self.desk = desk
        self.moment = moment

    def close(self) -> None:
        """Nothing to close."""

    def check(self) -> Checked:
        if self.desk.lacks:
            raise StopError(f"the ERP has no {self.desk.lacks}", "install it")
        return Checked(self.desk.identity, "1", Abilities(dict.fromkeys(get_args(Verb), 2), SETTLES))

    def clock(self) -> datetime:
        return self.desk.clock()

    def observe(self, refs: Collection[ErpRef]) -> Mapping[ErpRef, Observed]:
        with self.desk.lock:
            return {ref: _seen(self.desk, ref) for ref in refs if ref in self.desk.papers}

    def find(self, kind: Kind, fields: Fields) -> Sequence[Found]:
        with self.desk.lock:
            kept = _HEAD.union(*(paper.record.fields for paper in self.desk.papers.values()))
            if unknown := fields.keys() - kept - {"reference"}:
                raise SettingsError(f"the ERP's {kind}s have no {', '.join(unknown)}", "leave it out")
            of_kind = [
                (ref, {**paper.record.fields, "reference": f"N{paper.serial}"})
                for ref, paper in self.desk.papers.items()
                if ref.kind == kind
            ]
            return [Found(ref, _seen(self.desk, ref)) for ref, has in of_kind if _has(has, fields)]

    def unknown_items(self, skus: Collection[str]) -> set[str]:
        return {*skus} - self.desk.items

    def progress(self, steps: Sequence[Step]) -> Sequence[StepProgress]:
        with self.desk.lock:
            return [self._how_far(step) for step in steps]

    def _how_far(self, step: Step) -> StepProgress:
        paper = self.desk.papers.get(step.ref)
        if paper is None:
            return StepProgress(HowFar.NOT_DONE)
        half = HowFar.PARTLY if paper.begun == step.key else HowFar.NOT_DONE
        return StepProgress(HowFar.DONE if paper.key >= step.key else half, _seen(self.desk, step.ref))

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        return [self._one(step, not_after) for step in steps]

    def page(self, kinds: Collection[Kind], after: str, limit: int) -> Page:
        with self.desk.lock:
            papers = sorted((paper.serial, ref) for ref, paper in self.desk.papers.items() if ref.kind in kinds)
            rest = [(serial, ref) for serial, ref in papers if serial > int(after or 0)]
            found = [Found(ref, _seen(self.desk, ref)) for _, ref in rest[:limit]]
            return Page(found, str(rest[limit - 1][0]) if len(rest) > limit else None)

    def keys(self, kinds: Collection[Kind], after: str, limit: int) -> KeyPage:
        page = self.page(kinds, after, limit)
        return KeyPage([one.ref for one in page.found], page.next)

    def _one(self, step: Step, not_after: datetime) -> StepResult:
        begun = False
        try:
            with self.desk.lock:
                now = self.desk.papers.get(step.ref)
                if now is None and step.adopts:
                    now = self.desk.papers.get(ErpRef(step.ref.kind, step.adopts.document))
                if (known := self._known(step, now)) is not None:
                    return known
                wanted = self._written(step)
            for paper in self._calls(step, now, wanted):
                self._commit(step, now, paper, not_after)
                now, begun = paper, True
        except LateError:
            return NotDone(ConflictError("the time limit of this call has passed"), self._reached(step, begun))
        except ConflictError as error:
            return NotDone(error, self._reached(step, begun))
        except (RetryError, HoldError) as error:
            return NotDone(error)
        return self.observe([step.ref])[step.ref]

    def _reached(self, step: Step, begun: bool) -> Observed | None:
        return self.observe([step.ref]).get(step.ref) if begun else None

    def _known(self, step: Step, now: Paper | None) -> StepResult | None:
        """The refusal of a step, without doing it."""
        if now is None:
            if step.adopts:
                return NotDone(ConflictError("it is gone, or has a key by now"))
            return None if step.verb == "create" and step.before is None else NotDone(_NO_MORE)
        if step.adopts and step.ref not in self.desk.papers:
            same = step.before is not None and step.before.stamp == str(now.version)
            return None if same else NotDone(ConflictError("it is not as it was when this was planned"))
        if now.key == step.key and (step.verb not in ("create", "adopt") or not not_kept(step.want, now.record)):
            return _seen(self.desk, step.ref)
        if now.key > step.key or step.before is None or step.before.stamp != str(now.version):
            return NotDone(ConflictError("it is not as it was when this was planned"))
        if step.verb == "create" and now.begun != step.key:
            return NotDone(ConflictError(f"the {step.ref.kind} was made meanwhile"))
        return None

    def _written(self, step: Step) -> ErpRecord:
        """The record as the ERP keeps it. HoldError if it refuses it or would keep something else."""
        _refuse(self.desk, step)
        kept = _kept(step.want)
        if wrong := not_kept(step.want, kept):
            raise HoldError(
                f"the ERP did not store it as sent: {wrong}", "fix it in the shop, then `sink retry`", "data"
            )
        return kept

    def _calls(self, step: Step, now: Paper | None, wanted: ErpRecord) -> list[Paper]:
        """The document after each call of the step."""
        if now is None:
            draft = Paper(wanted, Milestone.DRAFT, self.desk.next_serial(), begun=step.key)
            done = replace(draft, milestone=step.goal, key=step.key)
            two = step.ref.kind == "order" and step.goal is not Milestone.DRAFT
            return [draft, replace(done, version=2)] if two else [done]
        record = wanted if step.verb in ("adopt", "amend") else now.record
        milestone = step.goal if now.milestone and now.milestone.before(step.goal) else now.milestone
        return [Paper(record, milestone, now.serial, step.key, step.key, now.version + 1)]

    def _commit(self, step: Step, before: Paper | None, after: Paper, not_after: datetime) -> None:
        """One transaction. What it writes counts at its end, if nobody else was first and the deadline has not
        passed."""
        for moment in ("before", "after"):
            self.moment(moment)
        self.moment("before")
        with self.desk.lock:
            if step.ref in self.desk.blocked:
                raise RetryError("it waited for a lock, in vain")
            if self.desk.clock() >= not_after:
                raise LateError
            was = step.ref if step.ref in self.desk.papers else _adopted(step)
            if self.desk.papers.get(was) != before:
                raise ConflictError("it changed in the ERP meanwhile")
            if was != step.ref:
                self.desk.put(was, None, step)
            self.desk.put(step.ref, after, step)
        self.moment("after")


def _has(record: Fields, fields: Fields) -> bool:
    """E-mails are compared without case."""

    def plain(values: Fields) -> Fields:
        mail = values.get("email")
        return {**values, "email": mail.lower()} if isinstance(mail, str) else values

    return plain(fields).items() <= plain(record).items()


def _adopted(step: Step) -> ErpRef:
    return ErpRef(step.ref.kind, step.adopts.document) if step.adopts else step.ref


def _seen(desk: Desk, ref: ErpRef) -> Observed:
    paper = desk.papers[ref]
    problem = "" if paper.milestone else "it is in a state that the mapping does not know"
    fields = paper.record.fields
    paid = fields.get("paid")
    state = paper.milestone or "limbo"
    seen = Observed(paper.record, paper.milestone, f"N{paper.serial}", str(paper.version), paper.key, state, problem)
    if ref.kind != "order":
        return seen
    moved, refunded = _moved(desk, ref)
    return replace(seen, paid=paid if isinstance(paid, Decimal) else None, moved=moved, refunded=refunded)


def _moved(desk: Desk, order: ErpRef) -> tuple[dict[str, Moved], dict[str, Decimal]]:
    """Returns and refunds of an order, whoever booked them."""
    lines: dict[str, dict[str, Decimal]] = {}
    refunded: dict[str, Decimal] = {}
    for ref, paper in desk.papers.items():
        if paper.record.fields.get("order") != order or paper.milestone is Milestone.CANCELLED:
            continue
        if ref.kind == "refund":
            refunded[ref.external] = _number(paper.record.fields, "gross")
        for row in paper.record.parts.get("line", {}).values():
            sold = row["order_line"]
            assert isinstance(sold, ErpRef)
            counts = lines.setdefault(order.part_and_key(sold.external)[1], {})
            counts[ref.external] = counts.get(ref.external, _ZERO) + _number(row, "quantity")
    return {line: Moved(counts) for line, counts in lines.items()}, refunded


def _number(fields: Fields, name: str) -> Decimal:
    value = fields[name]
    assert isinstance(value, Decimal)
    return value


def _refuse(desk: Desk, step: Step) -> None:
    """HoldError for what no ERP accepts: unknown items, accounts, orders and sold lines, and missing sums."""
    if step.verb not in ("create", "amend"):
        return
    account, order = step.want.fields.get("account"), step.want.fields.get("order")
    if isinstance(account, ErpRef) and account not in desk.papers:
        raise HoldError("its account is not in the ERP", "see what holds the customer", "master data")
    sold = desk.papers.get(order) if isinstance(order, ErpRef) else None
    if order is not None and sold is None:
        raise HoldError("its order is not in the ERP", "see what holds the order", "master data")
    for part, rows in step.want.parts.items():
        for row in rows.values():
            _refuse_row(desk, part, row, order, sold)


def _refuse_row(desk: Desk, part: PartKind, row: Fields, order: Value, sold: Paper | None) -> None:
    line = row.get("order_line")
    if isinstance(order, ErpRef) and sold and isinstance(line, ErpRef):
        of, key = order.part_and_key(line.external)
        if key not in sold.record.parts.get(of, {}):
            raise HoldError("a returned line is not on the ERP's order", "compare both orders, then `sink retry`")
    if row.get("sku") is not None and row["sku"] not in desk.items:
        raise HoldError("there is no such item", "make it", "master data")
    if part == "line" and "net" in row and row["net"] is None:
        raise HoldError("a line has no amount", "fix it in the shop", "data")


def _kept(want: ErpRecord) -> ErpRecord:
    """Rounds money to cents and quantities to ten-thousandths. `cancelled` is in the state."""
    fields = {name: value for name, value in want.fields.items() if name != "cancelled"}
    parts = {part: {key: _rounded(row) for key, row in rows.items()} for part, rows in want.parts.items()}
    return ErpRecord(want.kind, _rounded(fields), parts)


def _rounded(fields: Fields) -> Fields:
    found = dict(fields)
    for name, value in fields.items():
        if isinstance(value, Decimal):
            found[name] = value.quantize(_CENT if name in _MONEY else _SMALL)
    return found


def by_hand(desk: Desk) -> str:
    """A key for a typed-in document."""
    return f"{BY_HAND}{desk.next_serial()}"
