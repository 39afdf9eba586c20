"""`sink check`: looks at each part before a first start, and says what mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

from schemas.errors import OrdertapError, SettingsError, UnavailableError
from sink.database import Connection
from sink.documents.profile import Profile
from sink.erp.contract import Advice, Checked, Erp
from sink.intake.offsets import GroupOffsets
from sink.reconcile.sides import readable


class PartCheck(NamedTuple):
    """At one part; `error` is None where all is well, with `advice` on what may go wrong later."""

    part: str
    error: OrdertapError | None
    advice: Sequence[Advice] = ()

    @property
    def line(self) -> str:
        """For people."""
        if self.error is None:
            found = [f"\nnote {self.part}: {one.message}\n     mend: {one.hint}" for one in self.advice]
            return f"ok   {self.part}" + "".join(found)
        return f"BAD  {self.part}: {self.error.message}\n     mend: {self.error.hint}"


class CheckReport(NamedTuple):
    """Of all parts, for programs."""

    well: bool
    parts: Sequence[Mapping[str, object]]


def report(found: Sequence[PartCheck]) -> CheckReport:
    """The findings by their names; an error is its message and what mends it."""
    parts = [
        {
            "part": one.part,
            "error": one.error and one.error.message,
            "mend": one.error and one.error.hint,
            "advice": [{"message": advice.message, "mend": advice.hint} for advice in one.advice],
        }
        for one in found
    ]
    return CheckReport(all(one.error is None for one in found), parts)


def check(parts: Mapping[str, Callable[[], object]]) -> Iterator[PartCheck]:
    """One after the other, whatever is found."""
    for name, look in parts.items():
        try:
            found = look()
        except OrdertapError as error:
            yield PartCheck(name, error)
        else:
            yield PartCheck(name, None, found.advice if isinstance(found, Checked) else ())


def erp_answers(erp: Erp) -> Checked:
    """Address, credentials, tables."""
    with closing(erp):
        return erp.check()


def topics_exist(group: GroupOffsets, topics: Iterable[str], index: str) -> None:
    """Kafka answers, and has the index of commits and what the profile's tables need."""
    missing = sorted(set(topics) - {partition.topic for partition in group.partitions()})
    if index in missing:
        others = "".join(f", nor {topic}" for topic in missing if topic != index)
        raise UnavailableError(
            f"Kafka has no topic {index}, the index of commits by which the sink reads" + others,
            "this release's capture creates it: `capture init`, then `capture run`",
        )
    if missing:
        raise UnavailableError(f"Kafka has no topic {', '.join(missing)}", "`capture init` makes them")


def shop_is_readable(shop: Connection, profile: Profile) -> None:
    """As `sink reconcile` reads it: the profile's SQL runs there."""
    with closing(shop):
        try:
            readable(shop, profile)
        except SettingsError as error:
            hint = "let shop_url lead to the shop, as a user who may read its tables"
            raise SettingsError(error.message, hint) from None
