"""New buyers join their orders: they are planned in the same batch and sent before them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from sink.apply.desired import Desired, Known, Wanted
from sink.apply.sending import Sending
from sink.database import Connection, transaction
from sink.documents.refs import DocumentRef
from sink.ledger import documents, leases
from sink.ledger.documents import Entry
from sink.ledger.leases import Lease
from sink.ledger.outcomes import Outcome, State

_A_MOMENT: Final = 0.2  # seconds


class Buyers:
    """The buyers of a batch. None join with `customers: collective`."""

    def __init__(self, connection: Connection, desired: Desired, sending: Sending, owner: str) -> None:
        self._connection = connection
        self._desired = desired
        self._sending = sending
        self._owner = owner

    def join(
        self, leased: list[Lease], entries: Sequence[Entry], built: Mapping[DocumentRef, Known]
    ) -> tuple[list[Entry], set[DocumentRef]]:
        """Leases the buyers that the ERP does not have yet. Returns their entries, and the buyers that another worker
        has.

        A held buyer does not join, but waits for a change or for a person, and wakes their orders on arrival. Nor does
        a buyer who failed and is not to be tried again yet.
        """
        ours = {one.ref: one for one in entries}
        wanted = self._desired.buyers(one for ref, one in built.items() if self._desired.needs_buyer(ours[ref], one))
        if not wanted:
            return [], set()
        with transaction(self._connection) as cursor:
            found = documents.entries_of(cursor, sorted(wanted - ours.keys()))
            missing = {one.unit for one in found.values() if _may_come(one)}
            taken = leases.take(cursor, self._owner, self._sending.lease_seconds, missing)
            joined = documents.entries(cursor, [one.unit for one in taken]) if taken else []
            busy = leases.of_others(cursor, self._owner, missing - {one.unit for one in taken})
        for one in (*entries, *joined):
            one.needed |= one.ref in wanted
        leased += taken
        self._sending.resolve(leased, [(one, self._desired.in_erp(one)) for one in joined if one.intent])
        return joined, {ref for ref, one in found.items() if one.unit in busy}

    def give_back(
        self,
        leased: list[Lease],
        entries: Iterable[Entry],
        built: Mapping[DocumentRef, Known],
        elsewhere: Collection[DocumentRef],
    ) -> list[Entry]:
        """Releases the units of orders whose new buyer another worker has, and returns the documents of the other
        units. The released units keep their turn, and the buyer joins them once the other worker is done."""
        every = list(entries)
        if not elsewhere:
            return every
        early = {one.unit for one in every if not self._desired.buyers([built[one.ref]]).isdisjoint(elsewhere)}
        if early:
            with transaction(self._connection) as cursor:
                leases.release(cursor, [one for one in leased if one.unit in early], in_turn=True, rest=_A_MOMENT)
            leased[:] = [one for one in leased if one.unit not in early]
        return [one for one in every if one.unit not in early]


def before(want: Wanted | Outcome) -> DocumentRef | None:
    """The buyer who has to be in the ERP before this document."""
    if isinstance(want, Wanted):
        return want.after.ref if want.after else None
    return want.waits_for if want.state is State.WAITS else None


def _may_come(buyer: Entry) -> bool:
    """Whether a look can bring the buyer into the ERP now."""
    held = buyer.state is State.HELD and not buyer.dirty
    return not (buyer.arrived or held or buyer.rests or buyer.state is State.IGNORED)
