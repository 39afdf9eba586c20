"""Reads shop, ERP and ledger anew, and has them compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from sink.database import Connection, names_of, reading, transaction
from sink.documents.build import all_keys, build
from sink.documents.models import Document, Invalid, Missing, NotReady
from sink.documents.profile import Profile
from sink.documents.records import KIND_OF
from sink.documents.refs import DocumentRef
from sink.erp.contract import Erp, Observed
from sink.erp.kinds import BY_HAND, Kind
from sink.ledger import documents
from sink.ledger.outcomes import Standing
from sink.reconcile.compare import ErpSide, Sides, compare
from sink.reconcile.report import Report
from sink.staging import touches

_PAGE = 1000
OF_THE_SHOP = "public"  # the schema in which a shop's own tables are


def reconcile(
    middle: Connection,
    shop: Connection | None,
    name: str,
    profile: Profile,
    erp: Erp,
    collective: bool,
    compare_prices: bool = True,
) -> Report:
    """Do both sides agree? `shop`: the shop's own database, read-only; None: what is staged of it.

    `compare_prices` is False where the ERP owns the prices: they carry no key of ours then.
    """
    before = _standings(middle)
    desired = _desired(shop, OF_THE_SHOP, profile, False) if shop else _desired(middle, name, profile, True)
    kinds = {rule.name: KIND_OF[rule.model] for rule in profile.documents.values()}
    in_erp = _in_erp(erp, {kind for kind in kinds.values() if compare_prices or kind != "price"}, name)
    ledger = {
        # What was marked while we read is on its way.
        ref: one._replace(dirty=one.dirty or ref not in before or before[ref].marked != one.marked)
        for ref, one in _standings(middle).items()
    }
    return compare(Sides(name, desired, in_erp, ledger, kinds, collective))


def _in_erp(erp: Erp, kinds: Collection[Kind], name: str) -> dict[Kind, ErpSide]:
    """All documents of these kinds, by pages; those of other shops are not ours to compare."""
    records: dict[Kind, dict[str, Observed]] = {kind: {} for kind in kinds}
    foreign: Counter[Kind] = Counter()
    after: str | None = ""
    while after is not None and kinds:
        page = erp.page(kinds, after, _PAGE)
        for ref, observed in page.found:
            if ref.external.startswith(f"{name}/"):
                records[ref.kind][ref.external] = observed
            foreign[ref.kind] += ref.external.startswith(BY_HAND)
        after = page.next
    return {kind: ErpSide(records[kind], foreign[kind]) for kind in kinds}


def readable(shop: Connection, profile: Profile) -> None:
    """Whether the profile's SQL runs in the shop; SettingsError when it does not."""
    with reading(shop, staged=False) as cursor, names_of(cursor, OF_THE_SHOP):
        for rule in profile.documents.values():
            build(cursor, rule, ["0"])  # a key that need not exist: the names and rights are looked at all the same
        touches.find(cursor, profile, touches.no_rows(profile))


def _standings(middle: Connection) -> dict[DocumentRef, Standing]:
    with transaction(middle) as cursor:
        return documents.standings(cursor)


def _desired(
    connection: Connection, schema: str, profile: Profile, staged: bool
) -> dict[DocumentRef, Document | Invalid]:
    found: dict[DocumentRef, Document | Invalid] = {}
    with reading(connection, staged) as cursor, names_of(cursor, schema):
        for name, rule in profile.documents.items():
            keys = all_keys(cursor, rule)
            for key, built in build(cursor, rule, keys).items():
                if not isinstance(built, (Missing, NotReady)):
                    found[DocumentRef(name, key)] = built
    return found
