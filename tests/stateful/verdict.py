"""What must be true of shop, ledger and ERP, whatever has happened. Does not use the planner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from sink.database import transaction
from sink.documents.refs import DocumentRef
from sink.erp.kinds import BY_HAND, ErpRef, Kind, Milestone
from tests.stateful.erp import Desk, Paper
from tests.stateful.shop import Bought, rate
from tests.stateful.world import SHARED, World

KINDS: Mapping[str, Kind] = {
    "customer": "customer", "sales_order": "order", "return_order": "return", "refund": "refund", "price": "price",
}  # fmt: skip


class Standing(NamedTuple):
    """A document as the ledger has it."""

    ref: DocumentRef
    state: str
    reason: str | None
    next_step: str | None
    cause: str | None
    waits_for: str | None
    external: str | None
    given: bool
    accepted: bool  # a person has accepted it as the ERP has it

    def paper(self, desk: Desk) -> Paper | None:
        return desk.papers.get(ErpRef(KINDS[self.ref.type], self.external or ""))


def ledger(world: World) -> dict[DocumentRef, Standing]:
    with transaction(world.connection) as cursor:
        cursor.execute(
            "SELECT type, key, state, reason, next_step, cause, waits_for, external, applied IS NOT NULL,"
            " coalesce(decisions ->> 'settled', '') <> '' OR coalesce(decisions -> 'fields', '[]') <> '[]'"
            " FROM document"
        )
        found = [Standing(DocumentRef(*row[:2]), *row[2:]) for row in cursor.fetchall()]
    return {one.ref: one for one in found}


def nothing_twice(desk: Desk) -> None:
    """There is one document per key of the shop, made by one step, and no command was done twice in a row. What the
    clerk deletes before its create has ended was never there for the sink, which makes it by another step."""
    last: dict[ErpRef, Any] = {}
    made: dict[ErpRef, set[int]] = {}
    half_made: set[ErpRef] = set()
    for effect in desk.effects:
        before = last.get(effect.ref)
        if effect.paper is None and effect.ref in half_made:
            made.pop(effect.ref, None)
        half_made.discard(effect.ref)
        if effect.paper is not None and effect.paper.key == 0:
            half_made.add(effect.ref)
        if effect.step is not None:
            told, key = (effect.step.verb, effect.step.want), effect.step.key
            if before is not None and before[:2] == told:
                assert before[2] == key, f"{effect.ref} was told {told[0]} twice, as steps {before[2]} and {key}"
            if effect.step.verb == "create":
                made.setdefault(effect.ref, set()).add(key)
            last[effect.ref] = (*told, key)
        else:
            last[effect.ref] = None
    for ref, keys in made.items():
        assert len(keys) == 1, f"{ref} was made by steps {keys}"
    alive = [ref for ref, paper in desk.papers.items() if ref.kind != "price" or not _over(paper)]
    counts = Counter(ref.external.rsplit("/", 1)[0] for ref in alive if not ref.external.startswith(BY_HAND))
    assert [key for key, count in counts.items() if count > 1] == [], "two documents of one key"
    for kind in ("order", "return"):
        ours = [ref for ref in alive if ref.kind == kind and not ref.external.startswith(BY_HAND)]
        numbers = Counter(str(desk.papers[ref].record.fields["number"]) for ref in ours)
        assert [number for number, count in numbers.items() if count > 1] == [], f"an {kind} is there twice"


def money(world: World) -> None:
    """Documents that are done are in the ERP as the shop has them."""
    found = ledger(world)
    for one in found.values():
        if one.state in ("done", "gone") and not one.accepted:
            wrong = " and ".join(_differs(one, world, found))
            assert not wrong, f"{one.ref} is {one.state}, but {wrong}"


def _differs(one: Standing, world: World, found: Mapping[DocumentRef, Standing]) -> Iterator[str]:
    shop, paper, number = world.shop, one.paper(world.desk), one.ref.key
    match one.ref.type:
        case "sales_order":
            bought = shop.orders.get(int(number))
            yield from _of_order(bought, paper, _account(world, bought, found) if bought else None)
        case "return_order" if one.given and int(number) in shop.returns:
            of, *line = shop.returns[int(number)]
            yield from _of_return(_order(of, found), *line, paper=paper)
        case "refund" if one.given and int(number) in shop.refunds:
            of, gross = shop.refunds[int(number)]
            wanted = {"order": _order(of, found), "gross": gross}
            if of in shop.orders:
                wanted["currency"] = shop.orders[of].currency
            if paper is None or _over(paper) or not wanted.items() <= paper.record.fields.items():
                yield f"the ERP has {paper}"
        case "price":
            has = None if paper is None or _over(paper) else paper.record.fields["amount"]
            if has != shop.prices.get(number):
                yield f"the ERP has {has}, the shop {shop.prices.get(number)}"
        case "customer" if one.given:
            if paper is None or paper.record.fields["name"] != shop.customers[int(number)]:
                yield f"the ERP has {paper}"


def _order(key: int, found: Mapping[DocumentRef, Standing]) -> ErpRef:
    """Its document in the ERP, whatever key the shop gave it first."""
    one = found.get(DocumentRef("sales_order", str(key)))
    return ErpRef("order", (one and one.external) or f"shop/order/{key}/1")


def _account(world: World, bought: Bought, found: Mapping[DocumentRef, Standing]) -> ErpRef:
    if world.rules.customers == "collective":
        return SHARED
    return ErpRef("customer", found[DocumentRef("customer", str(bought.customer))].external or "")


def _of_return(order: ErpRef, line: int, quantity: int, paper: Paper | None) -> Iterator[str]:
    rows = [] if paper is None or _over(paper) else [*paper.record.parts["line"].values()]
    sold = order.child("line", str(line))
    if [(row["order_line"], row["quantity"]) for row in rows] != [(sold, Decimal(quantity))]:
        yield f"the ERP has {rows}"


def _of_order(bought: Bought | None, paper: Paper | None, account: ErpRef | None) -> Iterator[str]:
    if bought is None:
        if not _over(paper):
            yield "the ERP has it still"
        return
    if bought.status == "cancelled":
        if not _over(paper):
            yield "it is not cancelled in the ERP"
        return
    if paper is None or _over(paper):
        yield "it is not in the ERP"
        return
    fields, lines = paper.record.fields, paper.record.parts["line"]
    wants_of_head = {
        "gross": bought.gross, "paid": bought.paid, "number": bought.number, "shipping_street": bought.street,
        "currency": bought.currency, "account": account,
    }  # fmt: skip
    for name, wanted in wants_of_head.items():
        if fields[name] != wanted:
            yield f"{name}: shop {wanted}, ERP {fields[name]}"
    has = {key: (row["sku"], row["quantity"], row["gross"], row["tax_rate"]) for key, row in lines.items()}
    wants = {str(no): (sku, count, count * price, rate(sku)) for no, (sku, count, price) in bought.lines.items()}
    if has != wants:
        yield f"lines: shop {wants}, ERP {has}"
    if paper.milestone is Milestone.DRAFT:
        yield "it is a draft still"


def _over(paper: Paper | None) -> bool:
    return paper is None or paper.milestone is Milestone.CANCELLED


_BY_A_HAND: Final = (
    "changed in the ERP",
    "it was made in the ERP and is no longer",
    "the ERP has a document with this",
)


def said(world: World) -> None:
    """Each hold says why and what to do, and waiting documents wait for something that is not done. Only changes that a
    person really made are held as such."""
    found = ledger(world)
    touched = {effect.ref.external for effect in world.desk.effects if effect.step is None}
    for one in found.values():
        if one.state == "held" and (one.reason or "").startswith(_BY_A_HAND):
            assert one.external in touched, f"nobody did it: {one}"
        if one.state in ("held", "waits"):
            assert one.reason, one
            assert one.next_step, one
            assert one.cause, one
        if one.state == "waits":
            assert one.waits_for, one
            other = found.get(DocumentRef(*one.waits_for.split(" ", 1)))
            assert other is None or not other.given, f"{one} waits for {other}, which is in the ERP"


def nothing_due(world: World) -> None:
    """Only documents that wait for others, or for the ERP's master data, are looked at again by themselves."""
    with transaction(world.connection) as cursor:
        cursor.execute(
            "SELECT unit, array_agg(DISTINCT d.state || coalesce(' ' || d.cause, '')) FROM unit AS u"
            " JOIN document AS d USING (unit) WHERE u.due_at IS NOT NULL GROUP BY unit"
            " HAVING NOT bool_or(d.state = 'waits' OR d.cause = 'master data' OR d.check_name IS NOT DISTINCT FROM"
            "  'its order')"
        )
        due = cursor.fetchall()
        assert due == [], f"due for ever: {due}"
        cursor.execute("SELECT unit FROM unit WHERE deadline IS NOT NULL OR owner IS NOT NULL")
        assert cursor.fetchall() == [], "leased for ever"
