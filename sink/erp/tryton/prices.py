"""Prices are lines of price lists. Our key, and that of the last step, stand behind the amount in a line's formula.

    11.9000 # shop/price/17#3 from 2026-03-01T00:00:00+01:00

The first line of a list that fits is taken, so a price with a window stands before one without, and one for larger
quantities before one for smaller. A removed price is dated 1900: its line stays, and nothing is sold by it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from threading import Lock
from typing import Any, Final, NamedTuple, TypeVar

from schemas.model.errors import SettingsError
from sink.erp.contract import ConflictError, Found, HoldError, HowFar, NotDone, Observed, Step, StepResult, Verb
from sink.erp.kinds import BY_HAND, ErpRecord, ErpRef, Fields, Milestone, Value, not_kept
from sink.erp.tryton.batches import Failure, together
from sink.erp.tryton.catalogue import INACTIVE_TOO, EveryMinute, MasterData
from sink.erp.tryton.rpc import Row, Rpc, WriteCalls, stamps_of

_MODEL: Final = "product.price_list.line"
_READ: Final = [
    "formula", "quantity", "start_date", "end_date", "sequence", "_timestamp", "product.code", "price_list",
]  # fmt: skip
_LISTS: Final = "product.price_list"
_LIST: Final = ["name", "tax_included", "company.currency.code"]
_SOUGHT: Final = ("reference", "sku", "price_list")
_GONE: Final = date(1900, 1, 1)
_NO_BOUND: Final = (1, 9999)
"""The years by which shops say "always". Some of their moments do not exist in other time zones."""
_MANY: Final = 100
_MARK: Final = re.compile(r"^\s*(.*?)\s+#\s(\S.*)#(\d+)(?: from (\S+))?(?: until (\S+))?\s*$")
_LAST: Final = 1_000_000_000
_PER_PIECE: Final = 1_000
"""Places in a list between two quantities that differ by one: quantities may have three decimals."""
_MOST: Final = 300_000
_PAGE: Final = 1_000
_SECONDS_OF_A_DAY: Final = 86_400


class Formula(NamedTuple):
    """The parts of a line's formula. amount None: it is not a number. key "": the line is not ours. `since` and
    `until`: the shop's times, of which Tryton keeps only the days."""

    amount: Decimal | None
    key: str = ""
    step: int = 0
    since: datetime | None = None
    until: datetime | None = None


class PriceLine(NamedTuple):
    """A line as it was read, with its list's fields in `price_list.`, and the price that it is."""

    row: Row
    seen: Observed


class Prices:
    """The prices in the price lists of one company."""

    def __init__(self, rpc: Rpc, master: MasterData) -> None:
        self._rpc = rpc
        self._master = master
        self._ids: dict[str, int] = {}
        """The line where each key of ours was last seen. No index has the keys, so a search for one reads every
        line."""
        self._read_to = 0  # up to this line all keys were read
        self._looked_at: dict[ErpRef, PriceLine] = {}
        self._lists: dict[int, Row] = {}
        self._read_lists, self._look_anew = EveryMinute(), EveryMinute()
        self._lock, self._reading = Lock(), Lock()

    def read(self, refs: Collection[ErpRef]) -> dict[ErpRef, Observed]:
        """Prices as they are now; missing ones are left out."""
        lines = self._by_ref(refs)
        with self._lock:
            if len(self._looked_at) > _PAGE:  # prices that were looked at and needed no change
                self._looked_at.clear()
            self._looked_at |= lines
        return {ref: line.seen for ref, line in lines.items()}

    def how_far(self, step: Step, seen: Observed | None) -> HowFar:
        """Each step is one call, which writes its key."""
        return HowFar.DONE if seen and seen.key >= step.key else HowFar.NOT_DONE

    def find(self, fields: Fields) -> list[int]:
        """Ids of lines by item, price list or id; SettingsError for other fields."""
        if unknown := sorted(fields.keys() - {*_SOUGHT}):
            raise SettingsError(f"Tryton's price lists have no {', '.join(unknown)}", f"look for {', '.join(_SOUGHT)}")
        domain: list[Any] = []
        for name, value in fields.items():
            if name == "reference":
                domain.append(("id", "=", int(str(value)) if str(value).isdigit() else -1))
            elif name == "sku":
                domain.append(("product.code", "=", value))
            else:
                theirs = self._master.settings.price_lists.get(str(value), str(value))
                domain.append(("price_list.name", "=", theirs))
        return [row["id"] for row in self._rpc.search(_MODEL, domain, ["id"], _MANY)]

    def found(self, ids: Sequence[int]) -> list[Found]:
        """Prices in the order of the ids."""
        rows = self._with_lists(self._rpc.among(_MODEL, "id", ids, _READ))
        every = {row["id"]: (ref, line) for row in rows for ref, line in [self._line(row)]}
        return [Found(ref, line.seen) for ref, line in (every[one] for one in ids if one in every)]

    def keys(self, after: int, limit: int) -> tuple[list[tuple[int, ErpRef]], int | None]:
        """Ids and keys of lines that price one item, above `after`, rising; then the next `after`, None on the last
        page."""
        domain = [("id", ">", after), ("product", "!=", None), ("price_list.company", "=", self._master.company)]
        rows = self._rpc.search(_MODEL, domain, ["formula"], limit)
        return [(row["id"], _ref(row, _formula(row))) for row in rows], rows[-1]["id"] if len(rows) == limit else None

    def do(self, verb: Verb, steps: Sequence[Step], calls: WriteCalls) -> list[StepResult]:
        """Does all steps in one call."""
        there = self._there(verb, [step.ref for step in steps])
        known = [self._known(step, there.get(step.ref)) for step in steps]
        todo = {number: step for number, step in enumerate(steps) if known[number] is None}
        failed, values = self._all_values(todo)

        made: dict[int, int] = {}

        def create(some: Mapping[int, dict[str, Any]]) -> None:
            made.update(zip(some, calls.call(_MODEL, "create", list(some.values())), strict=True))

        def write(some: Mapping[int, dict[str, Any]]) -> None:
            rows = {number: there[todo[number].ref].row for number in some}
            pairs = [part for n, one in some.items() for part in ([rows[n]["id"]], _changes(rows[n], one))]
            calls.call(_MODEL, "write", *pairs, stamps=stamps_of(_MODEL, rows.values()))

        def moved(some: Mapping[int, dict[str, Any]]) -> list[int]:
            now = self._by_ref([todo[number].ref for number in some], searched=verb != "create")
            return [number for number in some if now.get(todo[number].ref) != there.get(todo[number].ref)]

        failed |= together(values, create if verb == "create" else write, moved)
        failed = self._without_ours(todo, failed)
        results: dict[int, StepResult] = {number: NotDone(error) for number, error in failed.items()}
        done = {number: step for number, step in todo.items() if number not in failed}
        if made:
            now = self._beside({number: values[number] for number in done}, made, calls)
        else:
            now = self._by_ref([step.ref for step in done.values()])
        results |= self._compared(done, now, made, calls)
        return [known[number] or results[number] for number in range(len(steps))]

    def _there(self, verb: Verb, refs: Sequence[ErpRef]) -> Mapping[ErpRef, PriceLine]:
        """The lines of the steps' prices. One that was just read is used once more: if it has changed since, its stamp
        makes Tryton refuse the write. The others are read now, as are all for a create."""
        if verb == "create":
            return self._by_ref(refs, searched=False)
        with self._lock:
            seen = {ref: self._looked_at.pop(ref) for ref in refs if ref in self._looked_at}
        return self._by_ref([ref for ref in refs if ref not in seen]) | seen

    def _without_ours(self, todo: Mapping[int, Step], failed: Mapping[int, Failure]) -> dict[int, Failure]:
        """Drops conflicts with our own call: if a call arrives twice, Tryton refuses the second."""
        moved = [number for number, error in failed.items() if isinstance(error, ConflictError)]
        now = self._by_ref([todo[number].ref for number in moved])
        ours = {n for n in moved if isinstance(self._known(todo[n], now.get(todo[n].ref)), Observed)}
        return {number: error for number, error in failed.items() if number not in ours}

    def _known(self, step: Step, line: PriceLine | None) -> StepResult | None:
        """The result of a step if it is known without a call; None if the step is still to be done."""
        if step.verb == "adopt":
            return NotDone(HoldError("a price is not linked", "let the sink make the shop's price there", "decision"))
        if line is None:
            gone = HoldError("it is no longer in the ERP", "restore it there, then `sink retry`")
            return None if step.verb == "create" else NotDone(gone)
        seen = line.seen
        if seen.key == step.key and (step.verb == "remove" or not not_kept(step.want, seen.record)):
            return seen
        if step.verb == "create":
            return NotDone(ConflictError("the price was made meanwhile"))
        if seen.key >= step.key:
            return NotDone(ConflictError("a later step was done already"))
        if step.before is None or step.before.stamp != seen.stamp:
            return NotDone(ConflictError("it changed in the ERP meanwhile"))
        return None

    def _all_values(self, todo: Mapping[int, Step]) -> tuple[dict[int, Failure], dict[int, dict[str, Any]]]:
        """The values to write, and the steps that have none because of an error."""
        self._master.products({str(step.want.fields["sku"]) for step in todo.values()})  # in one call
        failed: dict[int, Failure] = {}
        values: dict[int, dict[str, Any]] = {}
        for number, step in todo.items():
            try:
                values[number] = self._values(step)
            except HoldError as error:
                failed[number] = error
        return failed, values

    def _values(self, step: Step) -> dict[str, Any]:
        fields = step.want.fields
        amount, least = fields["amount"], fields["minimum_quantity"]
        since, until = fields.get("valid_from"), fields.get("valid_until")
        if not isinstance(amount, Decimal) or not isinstance(least, Decimal):
            raise HoldError("the price has no amount", "fix it in the shop", "data")
        if not step.ref.external.isprintable():
            hint = "make the profile's key one line of text, then `sink retry`"
            raise HoldError("the price's key has a line break or a tab, which a formula cannot keep", hint, "data")
        formula = formula_of(Formula(amount, step.ref.external, step.key, _time(since), _time(until)))
        if step.verb == "remove":
            return {"formula": formula, "start_date": _GONE, "end_date": _GONE, "sequence": _LAST}
        first, last = self._days(_time(since), _time(until))
        return {
            "price_list": self._master.price_list(str(fields["price_list"])),
            "product": self._master.priced(str(fields["sku"])),
            "formula": formula,
            "quantity": float(least),
            "start_date": first,
            "end_date": last,
            "sequence": sequence(first is not None or last is not None, least),
        }

    def _days(self, since: datetime | None, until: datetime | None) -> tuple[date | None, date | None]:
        """The first and the last day. Both midnight and the last minute before it end a day."""
        zone = self._master.zone
        since, until = _bound(since), _bound(until)
        for moment, told in ((since, "begins"), (until, "ends")):
            if moment is None:
                continue
            local = moment.astimezone(zone)
            into = (local - local.replace(hour=0, minute=0, second=0, microsecond=0)).total_seconds()
            if into and not (moment is until and into >= _SECONDS_OF_A_DAY - 60):
                hint = f"make it begin and end at midnight ({zone}) in the shop"
                raise HoldError(f"the price {told} within a day, and Tryton's prices last whole days", hint, "data")
        last = until.astimezone(zone) - timedelta(microseconds=1) if until else None
        return since.astimezone(zone).date() if since else None, last.date() if last else None

    def _compared(
        self, done: Mapping[int, Step], lines: Mapping[ErpRef, PriceLine], made: Mapping[int, int], calls: WriteCalls
    ) -> dict[int, StepResult]:
        """The results, from the lines as Tryton has them now. If Tryton did not keep a value, the step is held, and a
        new line is deleted. Tryton keeps no key unique: if two lines were made at once, the older is the price."""
        results: dict[int, StepResult] = {}
        for number, step in done.items():
            line = lines.get(step.ref)
            if line is None:
                if number in made:  # whatever keeps us from seeing it: the next try makes another
                    _taken_back(made[number], calls)
                results[number] = NotDone(ConflictError("it was deleted in the ERP meanwhile"))
                continue
            if line.row["id"] != made.get(number, line.row["id"]):
                _taken_back(made[number], calls)
                results[number] = self._known(step, line) or NotDone(ConflictError("the price was made meanwhile"))
                continue
            wrong = "" if step.verb == "remove" else not_kept(step.want, line.seen.record)
            results[number] = self._unkept(step, line, wrong, calls) if wrong else line.seen
        return results

    def _unkept(self, step: Step, line: PriceLine, wrong: str, calls: WriteCalls) -> NotDone:
        hint = "give Tryton's price list the shop's currency and taxes, then `sink retry`"
        error = HoldError(f"the ERP did not store it as sent: {wrong}", hint, "data")
        if step.verb == "create":
            return NotDone(error, None if _taken_back(line.row["id"], calls) else line.seen)
        return NotDone(error, line.seen)

    def _by_ref(self, refs: Collection[ErpRef], searched: bool = True) -> dict[ErpRef, PriceLine]:
        """The lines of prices, from lines known or new since the last look; of two lines with one key, the older.
        searched: look for the rest in all lines, which takes long. A create needs none, nor lines of the last minute:
        `_beside` finds doubles."""
        ours = {ref.external: ref for ref in refs if not ref.external.startswith(BY_HAND)}
        hand = {int(ref.external[len(BY_HAND) :]) for ref in refs if ref.external[len(BY_HAND) :].isdigit()}
        found = self._by_ids(self._known_ids(ours) | hand)
        if left := [key for key, ref in ours.items() if ref not in found]:
            self._look_through(left, now=searched)
            found = self._by_ids(self._known_ids(left)) | found
        left = [key for key, ref in ours.items() if ref not in found] if searched else []
        for start in range(0, len(left), _MANY):
            some = [("formula", "like", f"% # {_escaped(key)}#%") for key in left[start : start + _MANY]]
            found = self._lines(self._rpc.search(_MODEL, ["OR", *some], _READ)) | found
        return {ref: found[ref] for ref in refs if ref in found}

    def _known_ids(self, keys: Iterable[str]) -> set[int]:
        with self._lock:
            return {self._ids[key] for key in keys if key in self._ids}

    def _by_ids(self, ids: Collection[int]) -> dict[ErpRef, PriceLine]:
        return self._lines(self._rpc.among(_MODEL, "id", ids, _READ))

    def _lines(self, rows: Sequence[Row]) -> dict[ErpRef, PriceLine]:
        """The lines by key; remembers their ids. rows: in the order of their ids."""
        found = dict(self._line(row) for row in reversed(self._with_lists(rows)))
        self._remember((ref.external, line.row["id"]) for ref, line in found.items())
        return found

    def _with_lists(self, rows: Sequence[Row]) -> list[Row]:
        """The rows with the fields of their price lists, as they were at most a minute ago. Tryton takes twice as long
        if each row brings them. A list that is gone by now has taken its lines with it."""
        with self._lock:
            if self._read_lists.is_due():
                self._lists = {}
            lists = self._lists
        missing = {row["price_list"] for row in rows} - lists.keys()
        lists |= {one["id"]: one for one in self._rpc.among(_LISTS, "id", missing, _LIST, INACTIVE_TOO)}
        return [{**row, "price_list.": lists[row["price_list"]]} for row in rows if row["price_list"] in lists]

    def _look_through(self, missing: Iterable[str], now: bool) -> None:
        """Reads the keys of all lines that came since the last time (at first, of all), up to a number that fits into
        memory. missing: keys whose line is no longer where it was. now: even if that was done a minute ago."""
        with self._lock:
            for key in missing:
                self._ids.pop(key, None)
        with self._reading:
            if not (self._look_anew.is_due() or now):
                return
            after: int | None = self._read_to
            while after is not None and len(self._ids) < _MOST:
                found, after = self.keys(after, _PAGE)
                for one, ref in found:
                    with self._lock:
                        self._ids.setdefault(ref.external, one)
                    self._read_to = one

    def _beside(
        self, values: Mapping[int, Mapping[str, Any]], made: Mapping[int, int], calls: WriteCalls
    ) -> dict[ErpRef, PriceLine]:
        """All lines with the same lists and items, ours among them, since another process may have made the same price
        at once. A younger line with the same formula comes from a call that arrived twice. No stamp refuses that, so
        the line is deleted."""
        lists, items = ({one[name] for one in values.values()} for name in ("price_list", "product"))
        rows = self._rpc.among(_MODEL, "product", items, _READ, ("price_list", "in", sorted(lists)))
        ours = {values[number]["formula"]: one for number, one in made.items()}
        for twice in [row["id"] for row in rows if row["id"] > ours.get(row["formula"], row["id"])]:
            _taken_back(twice, calls)
        return self._lines(rows)

    def _remember(self, ids: Iterable[tuple[str, int]]) -> None:
        """Remembers the ids; if a key comes twice, the last one."""
        with self._lock:
            self._ids |= dict(ids)

    def _line(self, row: Row) -> tuple[ErpRef, PriceLine]:
        formula = _formula(row)
        return _ref(row, formula), PriceLine(row, self._observed(row, formula))

    def _observed(self, row: Row, formula: Formula) -> Observed:
        """The stamp covers only what the record has."""
        of_list = row["price_list."]
        names = {theirs: ours for ours, theirs in self._master.settings.price_lists.items()}
        gone = row["end_date"] == _GONE
        since, until = (formula.since, formula.until) if gone else self._window(row, formula)
        fields: dict[str, Value] = {
            "sku": (row["product."] or {}).get("code"),
            "price_list": names.get(of_list["name"], of_list["name"]),
            "currency": of_list["company."]["currency."]["code"],
            "tax_included": bool(of_list["tax_included"]),
            "amount": formula.amount,
            "minimum_quantity": Decimal(1) if row["quantity"] is None else Decimal(row["quantity"]),
            "valid_from": since,
            "valid_until": until,
        }
        told = repr([row["id"], formula.key, formula.step, gone, fields])
        stamp = hashlib.sha256(told.encode()).hexdigest()[:32]
        record, reference = ErpRecord("price", fields), str(row["id"])
        if formula.amount is None:
            problem = "its price list has a formula for it that is not an amount"
            return Observed(record, None, reference, stamp, formula.step, problem=problem)
        milestone = Milestone.CANCELLED if gone else Milestone.CONFIRMED
        return Observed(record, milestone, reference, stamp, formula.step, "removed" if gone else "in the list")

    def _window(self, row: Row, formula: Formula) -> tuple[datetime | None, datetime | None]:
        """The shop's times, if Tryton's days still are theirs; else midnight to midnight."""
        first, last = _bound(row["start_date"]), _bound(row["end_date"])
        try:
            ours = self._days(formula.since, formula.until)
        except HoldError:
            ours = (None, None)
        since = formula.since if ours[0] == first else first and self._master.midnight(first)
        until = formula.until if ours[1] == last else last and self._master.day_after(last)
        return since, until


def _changes(row: Row, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that differ from the line: Tryton validates whatever is written."""
    now = {
        **row,
        "product": (row["product."] or {}).get("id"),
    }
    return {name: value for name, value in values.items() if now[name] != value}


def _taken_back(line: int, calls: WriteCalls) -> bool:
    return not together({0: line}, lambda ids: calls.call(_MODEL, "delete", list(ids.values())))


def sequence(dated: bool, least: Decimal) -> int:
    """The line's place in its list: Tryton takes the first line that fits."""
    return (0 if dated else _LAST // 2) + max(0, _LAST // 4 - int(least * _PER_PIECE))


_When = TypeVar("_When", bound=date)


def _bound(when: _When | None) -> _When | None:
    """The moment or day, None if it is a year by which "always" is meant."""
    return None if when is None or when.year in _NO_BOUND else when


def formula_in(text: str) -> Formula:
    """Parses the formula of a line."""
    found = _MARK.match(text)
    amount, key, step, since, until = found.groups() if found else (text.partition("#")[0].strip(), "", "0", None, None)
    try:
        number = Decimal(amount)
        times = [datetime.fromisoformat(one) if one else None for one in (since, until)]
    except (InvalidOperation, ValueError):
        return Formula(None, key, int(step))
    return Formula(number, key, int(step), *times)


def formula_of(of: Formula) -> str:
    """The formula of a line. Tryton evaluates the amount; it always has a point, because Tryton wants no integer
    there."""
    window = f" from {of.since.isoformat()}" if of.since else ""
    window += f" until {of.until.isoformat()}" if of.until else ""
    amount = f"{of.amount:f}"
    return f"{amount if '.' in amount else amount + '.0'} # {of.key}#{of.step}{window}"


def _formula(row: Row) -> Formula:
    return formula_in(str(row["formula"]))


def _ref(row: Row, formula: Formula) -> ErpRef:
    return ErpRef("price", formula.key or f"{BY_HAND}{row['id']}")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _time(value: Value) -> datetime | None:
    return value if isinstance(value, datetime) else None
