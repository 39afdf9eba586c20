"""`sink check`: looks at each part that the sink needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Final, NamedTuple

from schemas.model.errors import OrdertapError, SettingsError, UnavailableError
from sink import layer
from sink.database import Connection
from sink.documents.profile import Profile
from sink.erp.contract import Advice, Checked, Erp, ErpSetup, Sells
from sink.intake.offsets import GroupOffsets
from sink.reconcile.sides import readable

_NAMED: Final = 20


class PartCheck(NamedTuple):
    """What was found at one part. `error` None: it is well; `advice` says what may go wrong later."""

    part: str
    error: OrdertapError | None
    advice: Sequence[Advice] = ()


def check(parts: Mapping[str, Callable[[], object]]) -> Iterator[PartCheck]:
    """Checks all parts, even if one fails. An error or advice that two parts share is reported once."""
    said: set[Advice] = set()
    for name, look in parts.items():
        try:
            found = look()
        except OrdertapError as error:
            told = Advice(error.message, error.hint)
            if told not in said:
                said.add(told)
                yield PartCheck(name, error)
        else:
            every = found.advice if isinstance(found, Checked | MasterDataFound) else ()
            advice = [one for one in every if one not in said]
            said.update(advice)
            yield PartCheck(name, None, advice)


def middle_layer(connection: Connection, shop: str) -> None:
    """Checks that the user may do all that `sink run` does in the middle layer."""
    with closing(connection):
        layer.check_rights(connection, shop)


def erp_answers(erp: Erp, away: list[OrdertapError]) -> Checked:
    """Checks the ERP's address, credentials and tables. `away` gets the error if it does not even answer."""
    with closing(erp):
        try:
            erp.clock()
        except OrdertapError as error:
            away.append(error)
            raise
        return erp.check()


class MasterDataFound(NamedTuple):
    """What the ERP lacks for what the shop sells."""

    advice: Sequence[Advice]


def master_data(erp: Erp, setup: ErpSetup | None, sells: Sells) -> MasterDataFound:
    """Looks for the items, and other master data, that the shop's next documents refer to."""
    with ExitStack() as open_:
        open_.enter_context(closing(erp))
        advice = [*_unknown_items(sorted(erp.unknown_items(sells.skus)))] if sells.skus else []
        if setup is not None:
            lacks = open_.enter_context(closing(setup)).lacks()
            advice += [Advice(one.message, one.hint) for one in lacks]
    return MasterDataFound(advice)


def _unknown_items(skus: Sequence[str]) -> Iterator[Advice]:
    if skus:
        more = f" and {len(skus) - _NAMED} more" if len(skus) > _NAMED else ""
        named = ", ".join(skus[:_NAMED]) + more
        hint = "make them there, as items that may be sold: documents with them are held until then"
        yield Advice(f"the ERP has no item for {len(skus)} of what the shop sells: {named}", hint)


def topics_exist(group: GroupOffsets, topics: Iterable[str], index: str) -> None:
    """Checks that Kafka answers, and has the index of commits and the profile's topics."""
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
    """Checks that the profile's SQL runs in the shop, as `sink reconcile` needs it."""
    with closing(shop):
        try:
            readable(shop, profile)
        except SettingsError as error:
            hint = "set shop_url to the shop, with a user who may read its tables"
            raise SettingsError(error.message, hint) from None
