"""What Tryton's answers mean."""

import pytest

from sink.erp.contract import ConflictError, HoldError, RetryError, SlowDownError, StopError
from sink.erp.kinds import ErpRecord
from sink.erp.tryton.errors import RefusalError, SessionEndedError, StaleError, hidden, of_answer, of_status


@pytest.mark.parametrize(
    ("status", "method", "meaning"),
    [
        (401, "common.db.login", StopError),
        (401, "model.sale.sale.read", SessionEndedError),
        (403, "model.sale.sale.explode", StopError),
        (404, "model.sale.sale.read", StopError),
        (400, "model.sale.sale.read", StopError),
        (408, "model.sale.sale.read", RetryError),
        (429, "common.db.login", SlowDownError),
        (502, "model.sale.sale.read", RetryError),
        (503, "model.sale.sale.read", RetryError),
        (504, "model.sale.sale.read", RetryError),
    ],
)
def test_a_status_is_ours_or_an_outage(status: int, method: str, meaning: type[Exception]) -> None:
    assert type(of_status(status, None, method)) is meaning


def test_a_rest_is_as_long_as_the_server_says() -> None:
    found = of_status(429, "7", "common.db.login")
    assert isinstance(found, SlowDownError)
    assert found.seconds == 7.0


@pytest.mark.parametrize(
    ("error", "meaning", "said"),
    [
        (["ConcurrencyException", ["Records modified", "", None]], StaleError, "meanwhile"),
        (["UserError", ["The code must be unique.", "", None]], RefusalError, "refused it: The code must be unique."),
        (["UserWarning", ["taxes", "A line has\nno tax", ""]], RefusalError, "refused it: taxes A line has no tax"),
        (["LoginException", ["password", "Password", "password"]], StopError, "password"),
        (["'nofield'", "Traceback …"], HoldError, "failed on it: 'nofield'"),
        ([], HoldError, "failed on it"),
    ],
)
def test_an_error_is_of_one_document_unless_it_refuses_us(
    error: list[object], meaning: type[ConflictError | HoldError | StopError], said: str
) -> None:
    found = of_answer(error)
    assert type(found) is meaning
    assert said in found.message


def test_a_traceback_is_not_shown() -> None:
    assert "Traceback" not in of_answer(["'nofield'", "Traceback …"]).message


def test_a_reason_says_nothing_personal() -> None:
    want = ErpRecord("customer", {"name": "Ann Lee", "email": "a@b.example", "number": "100001", "billing_city": ""})
    found = hidden(HoldError("refused: Ann Lee (100001), a@b.example", "fix it", "data"), want)
    assert (found.message, found.hint, found.cause) == ("refused: … (100001), …", "fix it", "data")
