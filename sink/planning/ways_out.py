"""Which verbs end which hold: a table, and the commands to type. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from sink.planning.policy import Check


class Way(StrEnum):
    """What a person can do about a held document, other than fixing what is wrong."""

    RETRY = "retry"  # look again, after something was fixed
    RELEASE = "release"  # let this version of it pass the check
    ACCEPT = "accept"  # let it stay as the ERP has it, or say which document it is
    IGNORE = "ignore"  # leave it alone for ever


_FIX: Final = (Way.RETRY, Way.IGNORE)
_RELEASE: Final = (Way.RETRY, Way.RELEASE, Way.IGNORE)
_ACCEPT: Final = (Way.RETRY, Way.ACCEPT, Way.IGNORE)
_EITHER: Final = (Way.RETRY, Way.RELEASE, Way.ACCEPT, Way.IGNORE)

WAYS: Final[Mapping[Check, tuple[Way, ...]]] = {
    Check.IDENTITY:     _ACCEPT,
    Check.MOVED:        _ACCEPT,
    Check.CHANGED:      _EITHER,
    Check.POSTED:       _ACCEPT,
    Check.ITS_ORDER:    _ACCEPT,
    Check.BRAKE:        _FIX,
    Check.TOTALS:       _RELEASE,
    Check.CAP:          _EITHER,
    Check.DELETED:      _EITHER,
    Check.ABSENT:       _ACCEPT,
    Check.TAKEN_BACK:   _ACCEPT,
    Check.LOST:         _ACCEPT,
    Check.LINK:         _FIX,
    Check.STRANGER:     _RELEASE,
    Check.UNREADABLE:   _FIX,
    Check.REFUSED:      _ACCEPT,
    Check.UNCLEAR:      (Way.RETRY,),
    Check.UNKNOWN_ITEM: _FIX,
    Check.NO_ACCOUNT:   _FIX,
    Check.SEVERAL_ACCOUNTS: _FIX,
    Check.NO_BUYER:     _FIX,
    Check.NO_LINES:     _FIX,
    Check.INVALID:      _FIX,
    Check.GAP:          _FIX,
    Check.NAME:         _FIX,
    Check.FAILED:       _FIX,
}  # fmt: skip

_PERSON: Final = " --person NAME"
_COMMANDS: Final[Mapping[Way, tuple[str, str]]] = {
    Way.RELEASE: ("sink release", "it is sent as it is"),
    Way.ACCEPT: ("sink accept document", "it stays in the ERP as it is there"),
    Way.IGNORE: ("sink ignore", "it is left alone from now on"),
}
_MEANS: Final[Mapping[tuple[Check, Way], str]] = {
    (Check.IDENTITY, Way.ACCEPT): "it is the order that was sent under this key",
    (Check.MOVED, Way.ACCEPT): "it is a new one, and none of those",
    (Check.CHANGED, Way.RELEASE): "the shop's values are written over it",
    (Check.DELETED, Way.RELEASE): "the ERP cancels it, too",
    (Check.STRANGER, Way.RELEASE): "it is this document, and what differs is sent",
    (Check.LOST, Way.ACCEPT): "the ERP does not get it again until the shop changes it",
}
"""What a verb means for this check, if it is not the usual."""
_BARE: Final[Mapping[str, str]] = {
    "sink retry": "",
    "sink accept document": _PERSON,
    "sink ignore": _PERSON,
    "sink ignore --undo": _PERSON,
}
"""Verbs that planning names without a document, and the options that they need besides."""


_OF_NOTHING: Final = frozenset({Check.IDENTITY, Check.MOVED})
"""Checks whose documents can be accepted even if the ERP does not have them."""


def ways(check: str | None, in_erp: bool) -> tuple[Way, ...]:
    """What ends a hold of this check. Without a check, as an earlier release wrote holds: only another look.

    `in_erp`: the ERP has the document; otherwise it cannot stay as the ERP has it.
    """
    if not check:
        return (Way.RETRY,)
    can_stay = in_erp or Check(check) in _OF_NOTHING
    return tuple(way for way in WAYS[Check(check)] if way is not Way.ACCEPT or can_stay)


def commands(check: str | None, document: str, in_erp: bool) -> list[str]:
    """The commands that end the hold without a fix, each with what it means. `document`: `TYPE KEY`."""
    found = [(way, _COMMANDS[way]) for way in ways(check, in_erp) if way in _COMMANDS]
    return [
        f"`{command} {document}{_PERSON}`: {_MEANS.get((Check(check), way), means) if check else means}"
        for way, (command, means) in found
    ]


def addressed(step: str, document: str) -> str:
    """A next step with complete commands in it. `document`: `TYPE KEY`."""
    for verb, wants in _BARE.items():
        step = step.replace(f"`{verb}`", f"`{verb} {document}{wants}`")
    return step
