"""New buyers travel with their orders: they are looked at in the same batch, and come to the ERP before them."""

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
    """Of the orders of a batch. Where each has an account of his own; else there are none."""

    def __init__(self, connection: Connection, desired: Desired, sending: Sending, owner: str) -> None:
        self._connection = connection
        self._desired = desired
        self._sending = sending
        self._owner = owner

    def join(
        self, held: list[Lease], entries: Sequence[Entry], built: Mapping[DocumentRef, Known]
    ) -> tuple[list[Entry], set[DocumentRef]]:
        """Buyers that are not in the ERP yet, whose units are `held` from now on; and those whom another worker has.

        One who is held rests until he changes or a person acts: his orders are woken when he comes.
        """
        ours = {one.ref: one for one in entries}
        wanted = self._desired.buyers(one for ref, one in built.items() if not self._desired.is_early(ours[ref], one))
        with transaction(self._connection) as cursor:
            found = documents.entries_of(cursor, sorted(wanted - ours.keys()))
            missing = {one.unit for one in found.values() if _may_come(one)}
            taken = leases.take(cursor, self._owner, self._sending.lease_seconds, missing)
            joined = documents.entries(cursor, [one.unit for one in taken]) if taken else []
            busy = leases.of_others(cursor, self._owner, missing - {one.unit for one in taken})
        for one in (*entries, *joined):
            one.needed |= one.ref in wanted
        held += taken
        self._sending.settle(held, [(one, self._desired.in_erp(one)) for one in joined if one.intent])
        return joined, {ref for ref, one in found.items() if one.unit in busy}

    def give_back(
        self,
        held: list[Lease],
        entries: Iterable[Entry],
        built: Mapping[DocumentRef, Known],
        elsewhere: Collection[DocumentRef],
    ) -> list[Entry]:
        """Gives back the units of orders whose new buyer another worker has: they keep their place, and have him with
        them as soon as that one is done with him. The documents of the others."""
        every = list(entries)
        early = {one.unit for one in every if not self._desired.buyers([built[one.ref]]).isdisjoint(elsewhere)}
        if early:
            with transaction(self._connection) as cursor:
                leases.release(cursor, [one for one in held if one.unit in early], in_turn=True, rest=_A_MOMENT)
            held[:] = [one for one in held if one.unit not in early]
        return [one for one in every if one.unit not in early]


def before(want: Wanted | Outcome) -> DocumentRef | None:
    """The buyer, who stands before an order in a batch, and has to be in the ERP first."""
    if isinstance(want, Wanted):
        return want.after.ref if want.after else None
    return want.waits_for if want.state is State.WAITS else None


def _may_come(buyer: Entry) -> bool:
    """Whether a look at a buyer may bring him to the ERP now."""
    rests = buyer.state is State.HELD and not buyer.dirty
    return not (buyer.arrived or rests or buyer.state is State.IGNORED)
