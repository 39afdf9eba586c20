"""Reads shop, ledger and ERP in pages and compares them.

First the shop's documents, unit by unit, each with the ERP's; then documents that the ERP has under our keys and the
shop does not have. Orders may flow meanwhile: the ledger is read before both sides, and again if they differ. Documents
that changed in between are compared again. Those that still change, or that the shop changed after it was read, are in
flight.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

from sink.database import Connection, names_of, reading, transaction
from sink.documents.build import InUnit, build
from sink.documents.profile import Profile
from sink.documents.records import KIND_OF
from sink.documents.refs import DocumentRef
from sink.erp.contract import Erp, Found
from sink.erp.kinds import BY_HAND, ErpRef, Kind
from sink.ledger import standings
from sink.ledger.outcomes import Standing
from sink.reconcile.compare import Sides, changed_since, compare, in_erp_only
from sink.reconcile.report import Report
from sink.reconcile.source import OF_THE_SHOP, Say, ShopSide, of_copy, of_shop
from sink.staging import touches

_PAGE: Final = 1_000
_LOOKS: Final = 3
PATIENCE: Final = 60.0  # the copy of an idle shop advances with heartbeats, every few seconds


def reconcile(
    middle: Connection,
    shop: Connection | None,
    name: str,
    profile: Profile,
    erp: Erp,
    collective: bool,
    compare_prices: bool = True,
    patience: float = PATIENCE,
    say: Say = lambda _: None,
) -> Report:
    """Compares both sides. `shop`: the shop's database, which is only read; None: the copy.

    `compare_prices`: False if the ERP owns the prices, which then have no key of ours. `say` gets the progress.
    UnavailableError if the copy does not reach the moment at which the shop was read within `patience` seconds.
    """
    kinds = {rule.name: KIND_OF[rule.model] for rule in profile.documents.values()}
    kinds = {name: kind for name, kind in kinds.items() if compare_prices or kind != "price"}
    with ExitStack() as opened:
        shop_side = opened.enter_context(
            of_shop(middle, shop, profile, kinds, patience, say) if shop else of_copy(middle, name, profile, kinds)
        )
        comparison = _Pages(middle, shop_side, erp, name, kinds, collective)
        comparison.run(say)
    return comparison.report


class _Pages:
    """Compares page by page. Only the report of a page is kept."""

    def __init__(
        self,
        middle: Connection,
        shop_side: ShopSide,
        erp: Erp,
        name: str,
        kinds: Mapping[str, Kind],
        collective: bool,
    ) -> None:
        self.report = Report(as_of=shop_side.as_of, lsn=str(shop_side.lsn))
        self._middle = middle
        self._shop_side = shop_side
        self._erp = erp
        self._ours = f"{name}/"
        self._kinds = kinds
        self._collective = collective

    def run(self, say: Say) -> None:
        """The shop's documents first, then the ERP's."""
        done = 0
        for page in self._shop_side.pages():
            self.report.add(self._compared(page))
            done += len(page)
            say(f"{done:,} documents of the shop compared, {self.report.classes.total():,} findings")
        done = 0
        after: str | None = ""
        every = sorted(set(self._kinds.values()))
        while after is not None and every:
            of_erp = self._erp.keys(every, after, _PAGE)
            self._look_for_more(of_erp.refs)
            after = of_erp.next
            done += len(of_erp.refs)
            say(f"{done:,} documents of the ERP checked, {self.report.classes.total():,} findings")

    def _compared(self, page: Sequence[InUnit], looks: int = _LOOKS) -> Report:
        """Compares units. Those that differ and have changed meanwhile are compared again, at most `looks` times."""
        sides = self._read(page)
        report = compare(sides)
        if report.agrees:
            return report
        unit_of = {one.ref: one.unit for one in page}
        doubtful = {unit_of[DocumentRef(one.type, one.key)] for one in report.findings}
        before = {ref: one for ref, one in sides.ledger.items() if unit_of.get(ref, one.unit) in doubtful}
        refs = [one.ref for one in page if one.unit in doubtful]
        with transaction(self._middle) as cursor:
            after = standings.of_units(cursor, doubtful, refs)
        unit_of = {ref: one.unit for ref, one in (before | after).items()} | unit_of
        changed = {ref for ref in before | after if before.get(ref) != after.get(ref)}
        if not changed or looks == 1:
            return compare(replace(sides, changed=changed)) if changed else report
        units = {unit_of[ref] for ref in changed}
        rest = compare(sides.of({one.ref for one in page if one.unit not in units}))
        rest.add(self._compared([one for one in page if one.unit in units], looks - 1))
        return rest

    def _read(self, page: Sequence[InUnit]) -> Sides:
        """Reads the ledger first: later changes are seen when it is read again."""
        refs = [one.ref for one in page]
        with transaction(self._middle) as cursor:
            ledger = standings.of_units(cursor, {one.unit for one in page}, refs)
        desired = self._shop_side.documents(refs)
        in_erp = {
            ErpRef(self._kinds[ref.type], key): ref
            for ref, key in ((ref, ledger[ref].external) for ref in desired if ref in ledger)
            if key is not None
        }
        seen = self._erp.observe(in_erp.keys())
        observed = {in_erp[ref]: one for ref, one in seen.items()}
        return Sides(desired, observed, ledger, self._kinds, self._collective, self._shop_side.since)

    def _look_for_more(self, refs: Collection[ErpRef]) -> None:
        """Finds documents of the ERP that the shop does not have. Those of other shops are not compared."""
        for ref in refs:
            self.report.foreign[ref.kind] += ref.external.startswith(BY_HAND)
        ours = self._suspects({ref.external: ref for ref in refs if ref.external.startswith(self._ours)})
        if not ours:
            return
        known = self._known(ours)
        absent = self._shop_side.lacking({ref for ref, _ in known.values()})
        left = {key: ref for key, ref in ours.items() if key not in known or known[key][0] in absent}
        if not left:
            return
        seen, now = self._erp.observe(left.values()), self._known(left)
        for key, ref in left.items():
            document, entry = now.get(key, (None, None))
            if ref not in seen:
                continue
            if entry and changed_since(entry, self._shop_side.since):
                continue  # it changed after the shop was read
            difference = in_erp_only(Found(ref, seen[ref]), document, entry, known.get(key) != now.get(key))
            if difference is not None:
                self.report.add_only_in_erp(ref.kind, difference)

    def _suspects(self, ours: Mapping[str, ErpRef]) -> Mapping[str, ErpRef]:
        """Leaves out those that the shop has, which are nearly all."""
        with transaction(self._middle) as cursor:
            known = standings.refs_by_external(cursor, ours)
        absent = self._shop_side.lacking(set(known.values()))
        return {key: ref for key, ref in ours.items() if key not in known or known[key] in absent}

    def _known(self, keys: Collection[str]) -> Mapping[str, tuple[DocumentRef, Standing]]:
        with transaction(self._middle) as cursor:
            return standings.by_external(cursor, keys)


def readable(shop: Connection, profile: Profile) -> None:
    """Checks that the profile's SQL runs in the shop; SettingsError if not."""
    with reading(shop, staged=False) as cursor, names_of(cursor, OF_THE_SHOP):
        for rule in profile.documents.values():
            build(cursor, rule, ["0"])  # the key need not exist: names and rights are checked in any case
        touches.find(cursor, profile, touches.no_rows(profile))
        touches.try_orders(cursor, profile)
