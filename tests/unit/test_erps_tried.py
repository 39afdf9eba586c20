"""What the end of a test run says about the ERPs of the contract suite."""

import pytest

from tests import fix_tryton


def _report(erp: str, outcome: str = "passed", why: str = "") -> pytest.TestReport:
    when = "setup" if outcome == "skipped" else "call"
    said = ("conftest.py", 1, why) if why else None
    nodeid = f"{fix_tryton.CONTRACT}steps.py::test_x[{erp}]"
    return pytest.TestReport(nodeid, ("x", 1, "x"), {}, outcome, said, when)  # type: ignore[arg-type]


def test_an_erp_that_was_not_tried_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fix_tryton, "MARIADB", "")
    away = _report("tryton", "skipped", f"{fix_tryton.NOT_TRIED}no network")
    ran, why = fix_tryton._tried([_report("sqlite"), _report("sqlite"), away])
    assert ran == ["sqlite (2 tests)"]
    assert why == ["Tryton: no network", "MariaDB: ORDERTAP_TEST_MARIADB names no server"]
    assert fix_tryton._tried([_report("in memory")]) == (["in memory (1 tests)"], []), "no database was tried at all"
    monkeypatch.setattr(fix_tryton, "MARIADB", "mariadb://")
    assert fix_tryton._tried([_report("sqlite"), _report("mariadb")])[1] == []
