"""The code uses the words of the middle layer, and each outcome says what a person needs."""

import re
from dataclasses import fields
from typing import get_args

import pytest

from sink.documents.refs import DocumentRef
from sink.erp.contract import Cause
from sink.layer import migrations
from sink.ledger.outcomes import Intent, Outcome, State

REF = DocumentRef("customer", "7")
SENT = Intent("create", {"kind": "order", "fields": {}, "parts": {}}, 1, 1, None)
WAITING = [
    *(Outcome.waits(REF, state, 60) for state in (None, *State)),
    Outcome.settling("no lines", "fix it", 3),
    Outcome.held("no lines", "fix it", "data", None),
    Outcome.retry("away", 0.5, 1),
    Outcome.planned("create order"),
]


def _checked(column: str) -> set[str]:
    """The words that the newest CHECK of a column of a document in the ledger allows."""
    statements = "\n".join(script for _, script in migrations()).split(";\n")
    text = "\n".join(one for one in statements if re.search(r"TABLE document\b", one))
    *_, newest = re.findall(rf"CHECK \({column} IN \(([^)]*)\)\)", text)
    return set(re.findall(r"'([^']*)'", newest))


def test_states_are_those_that_the_database_allows() -> None:
    assert {str(state) for state in State} == _checked("state")


def test_causes_are_those_that_the_database_allows() -> None:
    assert {*get_args(Cause), Outcome.waits(REF, None, 60).cause} == _checked("cause")


@pytest.mark.parametrize("outcome", WAITING, ids=lambda outcome: outcome.state)
def test_what_does_not_go_on_says_why_and_what_is_next(outcome: Outcome) -> None:
    assert outcome.reason
    assert outcome.next_step


def test_an_intent_is_kept_by_its_fields() -> None:
    """They are in the ledger of each installation: a new one needs a value where it is missing."""
    assert [field.name for field in fields(Intent)] == [
        "verb", "record", "revision", "marked", "fingerprint", "goal", "before", "stamp",
        "generation", "lsn", "adopts", "noted",
    ]  # fmt: skip
    of_before = Intent("create", SENT.record, 1, 1, None)
    assert (of_before.goal, of_before.before, of_before.stamp) == ("confirmed", "", "")


def test_what_was_removed_is_gone() -> None:
    assert Outcome.applied(SENT, "P-1").state is State.DONE
    assert Outcome.applied(Intent("remove", SENT.record, 2, 1, None), "P-1").state is State.GONE
