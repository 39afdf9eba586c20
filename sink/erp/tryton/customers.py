"""Customers are parties. Our key is one of a party's identifiers; its place in their list is the key of the last step.

The address with a place in the party's list is the customer's; the others belong to orders. When a customer's address
changes, the old one stays as it is, because documents refer to it.

If a person merges two parties, Tryton makes the identifiers of one inactive and gives them to the other. That
customer's key then leads to an account that is not theirs alone: it is neither compared nor changed for them. Not even
the number of the last step is written: Tryton lets nobody change an inactive identifier.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from schemas.model.errors import SettingsError
from sink.erp.contract import ConflictError, Found, HoldError, HowFar, NotDone, Observed, Step, StepResult, Verb
from sink.erp.kinds import BY_HAND, ErpRecord, ErpRef, Fields, Milestone, Value, not_kept
from sink.erp.tryton.addresses import NAMES, address_of, fields_of
from sink.erp.tryton.batches import Failure, together
from sink.erp.tryton.catalogue import INACTIVE_TOO, KEY, MasterData, PartyAddress, active_last, address_in, key_of
from sink.erp.tryton.reads import ids_of
from sink.erp.tryton.rpc import Row, Rpc, WriteCalls, stamps_of

_MANY: Final = 100
_CHILDREN: Final[Mapping[str, tuple[str, Sequence[str]]]] = {
    "identifiers": ("party.identifier", ("code", "type", "sequence")),
    "contact_mechanisms": ("party.contact_mechanism", ("type", "value")),
    "addresses": ("party.address", (*NAMES, "sequence")),
}
_READ: Final = [
    "name", "code", "active", "_timestamp",
    *(f"{child}.{name}" for child, (_, names) in _CHILDREN.items() for name in (*names, "_timestamp")),
]  # fmt: skip
_SOUGHT: Final = {"reference": "code", "number": "code", "name": "name", "tax_id": "identifiers.code", "email": "email"}
_KEPT: Final = "fix it in the shop, or make Tryton accept it as it is, then `sink retry`"


class Customers:
    """The customers of all shops in this Tryton, and the parties that people typed in."""

    def __init__(self, rpc: Rpc, master: MasterData) -> None:
        self._rpc = rpc
        self._master = master

    def read(self, refs: Collection[ErpRef]) -> dict[ErpRef, Observed]:
        """Customers as they are now; missing ones are left out."""
        return {ref: self._observed(row) for ref, row in self._by_ref(refs).items()}

    def how_far(self, step: Step, seen: Observed | None) -> HowFar:
        """Each step is one call, which writes its key."""
        return HowFar.DONE if seen and seen.key >= step.key else HowFar.NOT_DONE

    def find(self, fields: Fields) -> list[int]:
        """Ids of parties by number, name, e-mail or tax number, inactive parties too, since their number stays taken;
        SettingsError for other fields."""
        if unknown := sorted(fields.keys() - _SOUGHT.keys()):
            raise SettingsError(f"Tryton's parties have no {', '.join(unknown)}", f"look for {', '.join(_SOUGHT)}")
        domain = [clause for name, value in fields.items() for clause in _clauses(name, value)]
        return [row["id"] for row in self._rpc.search("party.party", [*domain, INACTIVE_TOO], ["id"], _MANY)]

    def found(self, ids: Sequence[int]) -> list[Found]:
        """Parties in the order of the ids."""
        rows = self._rows(ids)
        return [Found(_ref(rows[one]), self._observed(rows[one])) for one in ids if one in rows]

    def keys(self, after: int, limit: int) -> tuple[list[tuple[int, ErpRef]], int | None]:
        """Ids and keys above `after`, rising; then the next `after`, None on the last page."""
        domain = [("id", ">", after), ("id", "not in", self._master.strangers()), INACTIVE_TOO]
        rows = self._rpc.search("party.party", domain, ["identifiers.code"], limit)
        return [(row["id"], _ref(_with_key(row))) for row in rows], rows[-1]["id"] if len(rows) == limit else None

    def do(self, verb: Verb, steps: Sequence[Step], calls: WriteCalls) -> list[StepResult]:
        """Does all steps in one call, which is one transaction: customers have no drafts."""
        there = self._there(steps)
        known = {number: _known(step, there.get(number), self._observed) for number, step in enumerate(steps)}
        todo = {number: step for number, step in enumerate(steps) if known[number] is None}
        failed = self._write(todo, there, calls, self._master.settings.tax_identifier or None)
        # A tax number that does not fit its type is kept among the identifiers without a type.
        odd = {
            n: one for n, one in todo.items() if isinstance(failed.get(n), HoldError) and one.want.fields.get("tax_id")
        }
        if odd:
            failed = {n: error for n, error in failed.items() if n not in odd}
            failed |= self._write(odd, there, calls, None)
        failed = self._without_ours(todo, failed)
        results: dict[int, StepResult] = {number: result for number, result in known.items() if result is not None}
        results |= {number: NotDone(error) for number, error in failed.items()}
        results |= self._read_back({number: step for number, step in todo.items() if number not in failed}, calls)
        return [results[number] for number in range(len(steps))]

    def _without_ours(self, todo: Mapping[int, Step], failed: Mapping[int, Failure]) -> dict[int, Failure]:
        """Drops conflicts with our own call: if a call arrives twice, Tryton refuses the second."""
        moved = [number for number, error in failed.items() if isinstance(error, ConflictError)]
        now = self._there([todo[number] for number in moved])
        found = {number: _known(todo[number], now.get(place), self._observed) for place, number in enumerate(moved)}
        return {number: error for number, error in failed.items() if not isinstance(found.get(number), Observed)}

    def _there(self, steps: Sequence[Step]) -> dict[int, Row]:
        """The parties of steps, by the steps' places. An adopt finds the party that has no key yet."""
        hand = {n: ErpRef("customer", step.adopts.document) for n, step in enumerate(steps) if step.adopts}
        rows = self._by_ref({*hand.values(), *(step.ref for step in steps)})
        found = {n: rows.get(step.ref) or rows.get(hand.get(n, step.ref)) for n, step in enumerate(steps)}
        return {number: row for number, row in found.items() if row}

    def _write(
        self, todo: Mapping[int, Step], there: Mapping[int, Row], calls: WriteCalls, tax_type: str | None
    ) -> dict[int, Failure]:
        """Makes new parties, and changes those that exist. Returns the failures by number."""
        failed: dict[int, Failure] = {}
        values: dict[int, dict[str, Any]] = {}
        for number, step in todo.items():
            try:
                values[number] = self._values(step, there.get(number), tax_type)
            except HoldError as error:
                failed[number] = error

        def create(some: Mapping[int, dict[str, Any]]) -> None:
            calls.call("party.party", "create", list(some.values()))

        def write(some: Mapping[int, dict[str, Any]]) -> None:
            pairs = [part for number, one in some.items() for part in ([there[number]["id"]], one)]
            calls.call("party.party", "write", *pairs, stamps=_stamps(there[number] for number in some))

        def moved(some: Mapping[int, dict[str, Any]]) -> list[int]:
            now = self._there([todo[number] for number in some])
            return [number for place, number in enumerate(some) if now.get(place) != there.get(number)]

        failed |= together({n: one for n, one in values.items() if n not in there}, create, moved)
        return failed | together({n: one for n, one in values.items() if n in there}, write, moved)

    def _read_back(self, done: Mapping[int, Step], calls: WriteCalls) -> dict[int, StepResult]:
        """The results, as Tryton has the parties now. If Tryton did not keep a value, the step is held and a new party
        is deleted."""
        rows = self._by_ref([step.ref for step in done.values()])
        results: dict[int, StepResult] = {}
        for number, step in done.items():
            row = rows.get(step.ref)
            if row is None:
                results[number] = NotDone(ConflictError("it was deleted in the ERP meanwhile"))
                continue
            seen = self._observed(row)
            wrong = not_kept(step.want, seen.record)
            results[number] = self._unkept(step, row, wrong, calls) if wrong else seen
        return results

    def _unkept(self, step: Step, row: Row, wrong: str, calls: WriteCalls) -> NotDone:
        error = HoldError(f"the ERP did not store it as sent: {wrong}", _KEPT, "data")
        if step.verb == "create":
            failed = together({0: row["id"]}, lambda ids: calls.call("party.party", "delete", list(ids.values())))
            return NotDone(error, self._observed(row) if failed else None)
        return NotDone(error, self._observed(row))

    def _values(self, step: Step, row: Row | None, tax_type: str | None) -> dict[str, Any]:
        """The values to write to a party. row: the party as it is; None for a new one."""
        fields = step.want.fields
        ours = row["ours"] if row else None
        values: dict[str, Any] = {
            "identifiers": _one(ours, {"code": f"{KEY}{step.ref.external}", "sequence": step.key}),
        }
        if step.verb == "adopt":
            return values
        plain = {"name": fields["name"], "code": fields["number"]}
        values |= {name: value for name, value in plain.items() if row is None or row[name] != value}
        tax = {"code": fields["tax_id"], "type": tax_type} if fields.get("tax_id") else None
        kept = None if tax is None else tax["code"]
        now = _first(row, "identifiers", _is_tax_number)
        values["identifiers"] += [] if kept == (now and now["code"]) else _one(now, tax)
        mail = {"type": "email", "value": fields["email"]} if fields.get("email") else None
        values["contact_mechanisms"] = _one(_first(row, "contact_mechanisms", _is_email), mail)
        values["addresses"] = self._address(row, fields)
        return values

    def _address(self, row: Row | None, fields: Fields) -> list[Any]:
        """The changes that give the party its billing address: an equal address is used again, or a new one is made,
        and the old one loses its place in the list."""
        wanted = address_of(fields, "billing", self._master.country(_text(fields.get("billing_country"))))
        every = list(row["addresses."]) if row else []
        now = _placed(every)
        if (address_in(now) if now else PartyAddress(*[None] * 6)) == wanted:
            return []
        changes: list[Any] = [("write", [now["id"]], {"sequence": None})] if now else []
        if any(wanted):
            equal = next((one for one in every if address_in(one) == wanted), None)
            changes += _one(equal, {"sequence": 1} if equal else wanted._asdict() | {"sequence": 1})
        return changes

    def _by_ref(self, refs: Collection[ErpRef]) -> dict[ErpRef, Row]:
        """By the key among a party's identifiers; by its id as long as none of them is a key of ours."""
        ours = {f"{KEY}{ref.external}": ref for ref in refs if not ref.external.startswith(BY_HAND)}
        typed_in = [ref for ref in refs if ref.external.startswith(BY_HAND)]
        hand = {one: ref for ref in typed_in for one in ids_of([ref.external.removeprefix(BY_HAND)])}
        names = ["code", "sequence", "active", *(f"party.{name}" for name in _READ)]
        keys = active_last(self._rpc.among("party.identifier", "code", ours, names, INACTIVE_TOO))
        found: dict[ErpRef, Row] = {ours[key["code"]]: {**key["party."], "ours": key} for key in keys}
        return found | {hand[one]: row for one, row in self._rows(hand).items() if row["ours"] is None}

    def _rows(self, ids: Collection[int]) -> dict[int, Row]:
        return {row["id"]: _with_key(row) for row in self._rpc.among("party.party", "id", ids, _READ, INACTIVE_TOO)}

    def _observed(self, row: Row) -> Observed:
        """The stamp covers only what the record has, so a clerk may edit other fields without a conflict."""
        mail, tax = _first(row, "contact_mechanisms", _is_email), _first(row, "identifiers", _is_tax_number)
        ours = row["ours"]
        address = _placed(row["addresses."]) if ours else next(iter(row["addresses."]), None)
        fields: dict[str, Value] = {
            "number": row["code"],
            "name": row["name"],
            "email": mail["value"] if mail else None,
            "tax_id": tax["code"] if tax else None,
            **fields_of(address, "billing", self._master.countries()),
        }
        fields = {} if _is_merged(row) else fields
        key = int(ours["sequence"] or 0) if ours else 0
        milestone, state = (Milestone.CONFIRMED, "active") if row["active"] else (Milestone.CANCELLED, "inactive")
        told = json.dumps([row["id"], fields, key, state, ours and ours["code"]], sort_keys=True)
        stamp = hashlib.sha256(told.encode()).hexdigest()[:32]
        return Observed(ErpRecord("customer", fields), milestone, row["code"] or "", stamp, key, state)


def _known(step: Step, row: Row | None, observed: Any) -> StepResult | None:
    """The result of a step if it is known without a call; None if the step is still to be done."""
    if row is None:
        if step.verb == "create":
            return None
        if step.verb == "adopt":
            return NotDone(ConflictError("it is gone, or has a key by now"))
        return NotDone(HoldError("it is no longer in the ERP", "restore it there, then `sink retry`"))
    seen: Observed = observed(row)
    ours = _ref(row) == step.ref
    if ours and seen.key == step.key and not not_kept(step.want, seen.record):
        return seen
    if ours and step.verb == "amend" and _is_merged(row):
        return seen
    if ours and step.verb in ("create", "adopt"):
        return NotDone(ConflictError("the customer was made meanwhile"))
    if ours and seen.key >= step.key:
        return NotDone(ConflictError("a later step was done already"))
    if step.before is None or step.before.stamp != seen.stamp:
        return NotDone(ConflictError("it changed in the ERP meanwhile"))
    return None


def _ref(row: Row) -> ErpRef:
    ours = row["ours"]
    return ErpRef("customer", ours["code"].removeprefix(KEY) if ours else f"{BY_HAND}{row['id']}")


def _with_key(row: Row) -> Row:
    """A party with the identifier that is its own key in `ours`; None if it has none."""
    code = f"{KEY}{key_of(row['identifiers.'])}"
    return {**row, "ours": _first(row, "identifiers", lambda one: one["code"] == code)}


def _is_merged(row: Row) -> bool:
    """Whether the key that led to the party is not its own, but came from a party that was merged into it."""
    return row["ours"] is not None and row["ours"]["code"] != f"{KEY}{key_of(row['identifiers.'])}"


def _first(row: Row | None, child: str, which: Any) -> Row | None:
    every: Iterable[Row] = row[f"{child}."] if row else ()
    return next((one for one in every if which(one)), None)


def _is_key(one: Row) -> bool:
    return str(one["code"]).startswith(KEY)


def _is_tax_number(one: Row) -> bool:
    return not _is_key(one)


def _is_email(one: Row) -> bool:
    return bool(one["type"] == "email")


def _placed(addresses: Iterable[Row]) -> Row | None:
    """The customer's own address, if there is one."""
    placed = [one for one in addresses if one["sequence"] is not None]
    return min(placed, key=lambda one: (one["sequence"], one["id"])) if placed else None


def _one(now: Row | None, wanted: Mapping[str, Any] | None) -> list[Any]:
    """The change that turns the one child `now` into the one `wanted`; None stands for no child."""
    if now is None:
        return [("create", [dict(wanted)])] if wanted else []
    if wanted is None:
        return [("delete", [now["id"]])]
    changed = {name: value for name, value in wanted.items() if now.get(name) != value}
    return [("write", [now["id"]], changed)] if changed else []


def _stamps(rows: Iterable[Row]) -> dict[str, str]:
    """The stamps of parties and their children."""
    found: dict[str, str] = {}
    for row in rows:
        found |= stamps_of("party.party", [row])
        for child, (model, _) in _CHILDREN.items():
            found |= stamps_of(model, row[f"{child}."])
    return found


def _clauses(name: str, value: Value) -> list[Any]:
    if name != "email":
        return [(_SOUGHT[name], "=", value)]
    escaped = str(value).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return [("contact_mechanisms", "where", [("type", "=", "email"), ("value", "ilike", escaped)])]


def _text(value: Value) -> str | None:
    return None if value is None else str(value)
