"""Many steps in one transaction of the ERP. A refused batch is halved until the bad step is alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby

from sink.erp.contract import ConflictError, HoldError, NotDone, RetryError, Step, StepResult, StopError
from sink.erp.sql.connections import ErpDatabase
from sink.erp.sql.errors import LateError
from sink.erp.sql.reads import by_key
from sink.erp.sql.writes import Numbered, UnkeptError, Writing


def apply(database: ErpDatabase, steps: Sequence[Step], not_after: datetime) -> list[StepResult]:
    """Does the steps. One result each, in order. Raises none of our errors."""
    results: dict[int, StepResult] = {}
    left = [list(enumerate(steps))]
    while left:
        some = left.pop()
        try:
            results |= _together(database, some, not_after)
        except UnkeptError as error:
            results |= error.results
            rest = [one for one in some if one[0] not in error.results]
            left += [rest] if rest else []
        except HoldError as error:
            half = len(some) // 2
            if half:
                left += [some[half:], some[:half]]
            else:
                results |= _refused(database, some[0], error)
        except LateError as error:
            results |= {number: NotDone(ConflictError(error.message)) for number, _ in some}
        except (RetryError, StopError) as error:
            results |= {number: NotDone(error) for number, _ in some}
    return [results[number] for number in range(len(steps))]


def _together(database: ErpDatabase, steps: Sequence[Numbered], not_after: datetime) -> dict[int, StepResult]:
    """Does the steps in one transaction. The caller puts a step after those whose documents it refers to. All is read
    back at the end, after the ERP's deferred triggers, which may change it."""
    results: dict[int, StepResult] = {}
    with database.connection(write=True) as connection:
        alike = groupby(steps, lambda one: (one[1].ref.kind, one[1].verb))
        groups = [Writing(database, connection, list(some)) for _, some in alike]
        for group in groups:
            results |= group.write()
        database.run_deferred(connection)
        for group in groups:
            results |= group.read_back()
        database.commit(connection, not_after)
    return results


def _refused(database: ErpDatabase, one: Numbered, error: HoldError) -> dict[int, StepResult]:
    """The result of a refused step. A create or adopt that finds its key taken is a conflict instead."""
    number, step = one
    if step.verb in ("create", "adopt"):
        try:
            with database.connection() as connection:
                if by_key(database, connection, step.ref.kind, [step.ref.external]):
                    return {number: NotDone(ConflictError(f"the {step.ref.kind} was made meanwhile"))}
        except (RetryError, HoldError, StopError) as away:
            return {number: NotDone(away)}
    return {number: NotDone(error)}
