"""Errors of an ERP's database are classified by code, whatever class the driver gives them."""

from typing import Any

import pytest
from sqlalchemy import exc

from sink.erp.contract import ConflictError, HoldError, RetryError, StopError
from sink.erp.sql.errors import meaning


class OfPostgres(Exception):  # noqa: N818  as the driver names its own
    def __init__(self, pgcode: str) -> None:
        super().__init__("secret value")
        self.pgcode = pgcode


class OfMariadb(Exception):  # noqa: N818
    def __init__(self, number: int) -> None:
        super().__init__(number, "secret value")


@pytest.mark.parametrize(
    ("error", "means"),
    [
        (OfPostgres("23514"), HoldError),  # a CHECK
        (OfPostgres("P0001"), HoldError),  # a trigger that refuses
        (OfPostgres("42804"), HoldError),  # a column of another type
        (OfPostgres("22001"), HoldError),  # too long
        (OfPostgres("57014"), RetryError),  # the time limit
        (OfPostgres("57P01"), RetryError),  # the server goes down
        (OfPostgres("40P01"), ConflictError),  # a deadlock
        (OfPostgres("40001"), ConflictError),
        (OfPostgres("42501"), StopError),  # no right
        (OfPostgres("42P01"), StopError),  # no such table
        (OfPostgres("28P01"), StopError),  # password
        (OfMariadb(4025), HoldError),  # a CHECK, which the driver calls an operational error
        (OfMariadb(1644), HoldError),  # SIGNAL in a trigger
        (OfMariadb(1364), HoldError),  # no default
        (OfMariadb(2013), RetryError),  # the connection is lost
        (OfMariadb(1205), RetryError),  # a lock
        (OfMariadb(1213), ConflictError),
        (OfMariadb(1045), StopError),
    ],
)
@pytest.mark.parametrize("wrapped", [exc.OperationalError, exc.DatabaseError, exc.InternalError])
def test_the_code_decides(error: Exception, means: type[Exception], wrapped: Any) -> None:
    found = meaning(wrapped("UPDATE orders SET gross = 12", {}, error))
    assert type(found) is means
    assert "secret" not in found.message
    assert "UPDATE" not in found.message
    assert found.hint


def test_a_connection_that_was_lost_is_no_refusal() -> None:
    lost = exc.IntegrityError("", {}, OfPostgres("23505"))
    lost.connection_invalidated = True
    assert type(meaning(lost)) is RetryError
    assert type(meaning(exc.TimeoutError("the pool is empty"))) is RetryError


@pytest.mark.parametrize(
    "odd", [UnicodeEncodeError("latin-1", "secret", 0, 1, "no"), TypeError("secret"), ValueError()]
)
def test_a_value_that_the_driver_cannot_take_is_no_outage(odd: Exception) -> None:
    found = meaning(exc.StatementError("secret", "INSERT", {}, odd))
    assert type(found) is HoldError
    assert "secret" not in found.message
    assert type(odd).__name__ in found.message


def test_a_character_that_the_server_cannot_take_is_a_matter_of_the_data() -> None:
    found = meaning(exc.DataError("secret", {}, OfPostgres("22P05")))
    assert isinstance(found, HoldError)
    assert found.cause == "data"
    assert "secret" not in found.message
