"""The report of both sides; an ERP that lacks everything does not fill memory."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from sink.reconcile import report
from sink.reconcile.report import Class, Difference, Report


def _of(*results: Class) -> Report:
    found = Report()
    for number, result in enumerate(results):
        found.add_finding(Difference("sales_order", f"{number}", result, "x", Decimal(-1)))
    return found


def test_findings_are_counted_beyond_those_that_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST_LISTED", 3)
    whole = Report()
    for _ in range(3):
        page = _of("held", "differs")
        page.agreed["order"] = 7
        whole.add(page)
    assert len(whole.findings) == 3
    assert (whole.not_listed, whole.agrees, whole.explained) == (3, False, False)
    assert whole.lines()[3] == "and 3 more, counted below"
    assert whole.summary() == ("DISAGREE: 3 differs, 3 held; agreed 21 orders, 0 returns, 0 prices, difference 6.00")


def test_people_are_told_the_number_and_the_currencys_own_decimals() -> None:
    found = Report()
    found.add_finding(Difference("sales_order", "17", "differs", "gross", Decimal(-1250), "S-17", "JPY"))
    found.add_finding(Difference("price", "9", "differs", "amount", Decimal("1250.5")))
    assert found.lines()[:2] == [
        "differs: price 9: amount (1,250.50)",
        "differs: sales_order 17 (S-17): gross (-1,250 JPY)",
    ]
    assert found.to_json()["findings"][0]["difference"] == "-1250"


def test_one_is_explained_where_all_are() -> None:
    assert _of("held", "in flight").explained
    assert not _of("held", "missing in the ERP").explained


def test_machines_are_told_the_moment_too() -> None:
    found = Report(as_of=datetime(2026, 11, 29, 22, tzinfo=UTC), lsn="0/1A2B")
    assert found.lines()[0] == "the shop as of 2026-11-29 22:00:00 UTC, 0/1A2B in its log"
    told = found.to_json()
    assert (told["as_of"], told["lsn"], told["not_listed"]) == ("2026-11-29T22:00:00+00:00", "0/1A2B", 0)
