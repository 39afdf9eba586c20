"""The shop's side: its documents in pages, from the shop's database as of one moment, or from the copy."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from schemas.model.errors import UnavailableError
from schemas.model.lsn import LSN
from sink.database import Connection, Cursor, names_of, reading, transaction
from sink.documents.build import InUnit, build, close_list, keep_list, next_of_list, open_list, ready_keys
from sink.documents.models import Document, Invalid, Missing, NotReady
from sink.documents.profile import Profile
from sink.documents.refs import DocumentRef
from sink.ledger import standings
from sink.staging import position

OF_THE_SHOP: Final = "public"  # the schema of a shop's own tables
_PAGE: Final = 1_000
_LOOK: Final = 0.2

Say = Callable[[str], None]


@dataclass(frozen=True)
class ShopSide:
    """`as_of`, `lsn`: the moment that it shows. `since`: the ledger's time before that; documents marked later may have
    changed after the read. None: each page shows its own moment."""

    as_of: datetime | None
    lsn: LSN
    since: datetime | None
    profile: Profile
    cursor: Callable[[], AbstractContextManager[Cursor]]

    def pages(self) -> Iterator[list[InUnit]]:
        """All documents, ready or not. Each unit is on one page."""
        page: list[InUnit] = []
        while some := self._next():
            page += some
            begins = next(at for at, one in enumerate(page) if one.unit == page[-1].unit)
            if begins:  # the next page may have more of the last unit
                yield page[:begins]
                page = page[begins:]
        if page:
            yield page

    def documents(self, refs: Collection[DocumentRef]) -> dict[DocumentRef, Document | Invalid]:
        """The documents that exist and are ready, and invalid ones."""
        found: dict[DocumentRef, Document | Invalid] = {}
        with self.cursor() as cursor:
            for name, keys in _by_type(refs).items():
                for key, built in build(cursor, self.profile.documents[name], keys).items():
                    if not isinstance(built, (Missing, NotReady)):
                        found[DocumentRef(name, key)] = built
        return found

    def lacking(self, refs: Collection[DocumentRef]) -> set[DocumentRef]:
        """The documents that do not exist or are not ready. Only documents that seem so are built."""
        left = {ref for ref in refs if ref.type not in self.profile.documents}
        doubtful: list[DocumentRef] = []
        with self.cursor() as cursor:
            for name, keys in _by_type(set(refs) - left).items():
                ready = ready_keys(cursor, self.profile.documents[name], keys)
                doubtful += [DocumentRef(name, key) for key in keys if key not in ready]
        return left | (set(doubtful) - self.documents(doubtful).keys() if doubtful else set())

    def _next(self) -> list[InUnit]:
        with self.cursor() as cursor:
            return next_of_list(cursor, _PAGE)


@contextmanager
def of_shop(
    middle: Connection, shop: Connection, profile: Profile, names: Collection[str], patience: float, say: Say
) -> Iterator[ShopSide]:
    """The shop in one transaction, as of one moment. Waits until the copy has passed that moment, so that all it shows
    is marked. UnavailableError after `patience` seconds."""
    with transaction(middle) as cursor:
        since = standings.moment(cursor)
    with reading(shop, staged=False) as cursor:
        as_of, lsn = position.place_of_shop(cursor)
        with names_of(cursor, OF_THE_SHOP):
            open_list(cursor, profile, names, hold=False)
            _wait_for_copy(middle, lsn, patience, say)
            yield ShopSide(as_of, lsn, since, profile, lambda: nullcontext(cursor))


@contextmanager
def of_copy(middle: Connection, name: str, profile: Profile, names: Collection[str]) -> Iterator[ShopSide]:
    """The copy. Each page is a transaction of its own, so that a change of the shop's schema need not wait for us."""
    with reading(middle) as cursor:
        copy = position.show_copy(cursor)
        with names_of(cursor, name):
            open_list(cursor, profile, names, hold=True)
        keep_list(cursor)
    try:
        yield ShopSide(copy.committed_at, copy.stamp.commit_lsn, None, profile, lambda: _page(middle, name))
    finally:
        if not middle.closed:
            close_list(middle)


@contextmanager
def _page(middle: Connection, name: str) -> Iterator[Cursor]:
    with reading(middle) as cursor, names_of(cursor, name):
        yield cursor


def _wait_for_copy(middle: Connection, lsn: LSN, patience: float, say: Say) -> None:
    until = time.monotonic() + patience
    while True:
        with transaction(middle) as cursor:
            copy = position.show_copy(cursor)
        if copy.state != "catching up" and copy.stamp.commit_lsn >= lsn:
            return
        stands = f"it is {copy.state} at {copy.stamp.commit_lsn}" + (copy.waits_for and f" and waits: {copy.waits_for}")
        if time.monotonic() > until:
            raise UnavailableError(
                f"the copy has not reached {lsn} of the shop's log within {patience:.0f} s: {stands}",
                "`capture run` and `sink run` must be running; without `shop_url` the copy is compared as it is",
            )
        say(f"waits until the copy has reached {lsn} of the shop's log: {stands}")
        time.sleep(_LOOK)


def _by_type(refs: Collection[DocumentRef]) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = {}
    for ref in sorted(refs):
        found.setdefault(ref.type, []).append(ref.key)
    return found
