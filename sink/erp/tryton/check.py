"""Checks whether a Tryton can be used: version, modules, rights, buttons and master data.

A StopError names what would harm every document. Advice names what will hold some documents later, each with its
reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final, NamedTuple

from sink.erp.contract import Advice, Sells, StopError
from sink.erp.tryton.catalogue import MasterData
from sink.erp.tryton.rpc import Rpc
from sink.erp.tryton.settings import TrytonSettings
from sink.erp.tryton.setup import Needs

VERSION: Final = "8.2."
ASSUMED_TO_SETTLE: Final = 60.0
MODULES: Final = (
    "account_invoice_stock", "product_price_list", "product_price_list_dates", "sale", "sale_amendment",
    "sale_discount", "web_shop",
)  # fmt: skip
_EVERY: Final = ("read", "write", "create")
RIGHTS: Final[Mapping[str, Collection[str]]] = {
    "party.party": (*_EVERY, "delete"),
    "party.address": _EVERY,
    "party.identifier": (*_EVERY, "delete"),
    "party.contact_mechanism": (*_EVERY, "delete"),
    "sale.sale": (*_EVERY, "delete"),
    "sale.line": (*_EVERY, "delete"),
    "sale.amendment": _EVERY,
    "product.price_list": ("read",),
    "product.price_list.line": (*_EVERY, "delete"),
    "product.product": ("read",),
    "account.tax": ("read",),
    "account.invoice": ("read", "write"),
    "account.invoice.line": ("read",),
    "stock.move": ("read",),
    "stock.shipment.out": ("read", "write"),
    "stock.shipment.out.return": ("read", "write"),
    "stock.location": ("read",),
    "web.shop": ("read",),
}
BUTTONS: Final[Mapping[str, Collection[str]]] = {
    "sale.sale": ("draft", "quote", "confirm", "process", "cancel"),
    "sale.amendment": ("validate_amendment",),
    "account.invoice": ("cancel",),
    "stock.shipment.out": ("cancel",),
    "stock.shipment.out.return": ("cancel",),
}


_RULED_BY: Final = {"sale.line": "sale.sale", "product.price_list.line": "product.price_list"}
"""Models that have no rights of their own: by whose rights Tryton decides."""
_INTO: Final = "put erp.user into the group {}; Tryton may need a restart to take it in"


class TrytonFacts(NamedTuple):
    """The parts of Checked that Tryton itself tells."""

    identity: str
    version: str
    advice: list[Advice]


def settles_within(settings: TrytonSettings) -> float:
    """Seconds in which a call that Tryton has received may still take effect."""
    return ASSUMED_TO_SETTLE if settings.settles_seconds is None else settings.settles_seconds


def look(rpc: Rpc, master: MasterData) -> TrytonFacts:
    """Looks at everything. StopError names all that is missing at once, or says that taxes are rounded otherwise."""
    if refused := _refusal([*_modules(rpc), *_rights(rpc), *_buttons(rpc)]):
        raise refused
    master.demand_rounding_by_line()
    version = rpc.search("ir.module", [("name", "=", "sale")], ["version"])[0]["version"]
    return TrytonFacts(master.identity(), f"Tryton {version}", [*_advice(rpc, master, version)])


def lacking(rpc: Rpc) -> StopError | None:
    """The error that names the rights and buttons the user lacks, None if none. Tryton reports a missing right like any
    other refusal."""
    return _refusal([*_rights(rpc), *_buttons(rpc)])


def _refusal(missing: Collection[Advice]) -> StopError | None:
    """One error for all that is missing."""
    hints = dict.fromkeys(one.hint for one in missing)
    return StopError("; ".join(one.message for one in missing), "; ".join(hints)) if missing else None


def _modules(rpc: Rpc) -> Iterator[Advice]:
    rows = rpc.among("ir.module", "name", MODULES, ["name"], ("state", "=", "activated"))
    for name in sorted({*MODULES} - {row["name"] for row in rows}):
        yield Advice(f"Tryton's module {name} is not activated", f"`trytond-admin -u {name} --activate-dependencies`")


def _rights(rpc: Rpc) -> Iterator[Advice]:
    has = rpc.call("ir.model.access", "get_access", sorted(RIGHTS))
    lacks: dict[str, list[str]] = {}
    for model, rights in RIGHTS.items():
        if missing := [right for right in rights if not has.get(model, {}).get(right)]:
            lacks[model] = missing
    groups = _groups_that_may(rpc, lacks)
    for model, missing in lacks.items():
        may = f"{' and '.join(missing)} {model}"
        hint = _INTO.format(groups[model]) if groups[model] else f"give erp.user a group that may {may}"
        yield Advice(f"Tryton's user may not {may}", hint)


def _groups_that_may(rpc: Rpc, lacks: Mapping[str, Collection[str]]) -> dict[str, str]:
    """The names of the groups that have all that is lacking, by model; "" if no group has."""
    ruled = {model: _RULED_BY.get(model, model) for model in lacks}
    names = ("model", "group", *(f"perm_{right}" for right in (*_EVERY, "delete")))
    rows = rpc.among("ir.model.access", "model", ruled.values(), names, ("group", "!=", None))
    named = _named(rpc, {row["group"] for row in rows})
    found: dict[str, str] = {}
    for model, rights in lacks.items():
        may = [row for row in rows if row["model"] == ruled[model] and all(row[f"perm_{right}"] for right in rights)]
        found[model] = " or ".join(named(row["group"]) for row in may)
    return found


def _named(rpc: Rpc, groups: Collection[int]) -> Callable[[int], str]:
    """Names of groups by id; the id itself if a name cannot be read."""
    names = {row["id"]: str(row["name"]) for row in rpc.among("res.group", "id", groups, ["name"])}
    return lambda group: names.get(group, str(group))


def _buttons(rpc: Rpc) -> Iterator[Advice]:
    """A button with groups is only for users in one of them."""
    ours = {*rpc.call("res.user", "get_preferences", False)["groups"]}
    rows = rpc.among("ir.model.button", "model", BUTTONS, ["name", "model", "groups"])
    closed = [row for row in rows if row["name"] in BUTTONS[row["model"]]]
    closed = [row for row in closed if row["groups"] and not ours.intersection(row["groups"])]
    named = _named(rpc, {group for row in closed for group in row["groups"]})
    for row in closed:
        groups = " or ".join(map(named, row["groups"]))
        message = f"Tryton's user may not press {row['name']} of {row['model']}, which {groups} may"
        yield Advice(message, _INTO.format(groups))


def _advice(rpc: Rpc, master: MasterData, version: str) -> Iterator[Advice]:
    settings = master.settings
    if not version.startswith(VERSION):
        yield Advice(f"Tryton is {version}", f"this adapter was tested with {VERSION}x: try it on a copy first")
    if settings.settles_seconds is None:
        yield Advice(
            f"it is not set how long a call may still take effect: {ASSUMED_TO_SETTLE:.0f} s are assumed",
            "set lock_timeout and statement_timeout in Tryton's database, and set erp.settles_seconds",
        )
    if master.abandons_drafts:
        yield Advice("Tryton cancels drafts of the web shop by itself", "empty its Sale Draft Abandon Delay")
    _ = (master.warehouse, master.payment_term)  # StopError where one is missing
    for lack in Needs(rpc, master, Sells()).lacks():
        yield Advice(lack.message, lack.hint)
