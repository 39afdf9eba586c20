"""One document that Tryton fails to read harms no other, and a read that fails after a write is no refusal."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from sink.erp.contract import Found, HoldError, HowFar, NotDone, Observed, RetryError, Step, StepResult, StopError, Verb
from sink.erp.kinds import ErpRecord, ErpRef, Milestone
from sink.erp.tryton import adapter
from sink.erp.tryton.adapter import TrytonErp
from sink.erp.tryton.rpc import WriteCalls, now
from sink.erp.tryton.settings import TrytonSettings

BROKEN = 7
FAILS = HoldError("the ERP failed on it: Jane Doe", "see the log")


class Rpc:
    """Takes every call."""

    def __init__(self, *_: object) -> None: ...

    def session(self) -> str:
        return "Session x"

    def send(self, *_: object) -> None: ...

    def close(self) -> None: ...


class Orders:
    """Twenty orders. Every read that includes one of `broken` fails; with `down`, every read fails."""

    def __init__(self, *_: object) -> None:
        self.broken: set[int] = {BROKEN}
        self.down = False
        self.written: list[str] = []

    def read(self, refs: Collection[ErpRef]) -> Mapping[ErpRef, Observed]:
        found = self.found([int(ref.external) for ref in refs if ref.external.isdigit()])
        return {ref: seen for ref, seen in found if ref in refs}

    def found(self, ids: Sequence[int]) -> list[Found]:
        if self.down or self.broken & {*ids}:
            raise FAILS
        return [Found(of(one), seen(one)) for one in ids if one <= 20]

    def find(self, _: object) -> list[int]:
        return [BROKEN - 1, BROKEN]

    def keys(self, after: int, limit: int) -> tuple[list[tuple[int, ErpRef]], int | None]:
        return [(one, of(one)) for one in range(after + 1, 21)][:limit], None

    def how_far(self, step: Step, seen: Observed | None) -> HowFar:
        return HowFar.DONE if seen and seen.key >= step.key else HowFar.NOT_DONE

    def do(self, _: Verb, steps: Sequence[Step], calls: WriteCalls) -> Sequence[StepResult]:
        """An amend reads first; every step reads after the write."""
        if any(step.verb == "amend" for step in steps):
            self.read([step.ref for step in steps])
        calls.call("sale.sale", "write", [step.ref.external for step in steps])
        self.written += [step.ref.external for step in steps]
        return [*self.read([step.ref for step in steps]).values()]


def of(number: int) -> ErpRef:
    return ErpRef("order", str(number))


def seen(number: int) -> Observed:
    return Observed(ErpRecord("order", {}), Milestone.DRAFT, str(number), f"stamp {number}", key=1)


def step(number: int, verb: Verb) -> Step:
    return Step(of(number), verb, ErpRecord("order", {}), None, Milestone.DRAFT, 1)


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> Orders:
    made = Orders()
    monkeypatch.setattr(adapter, "Rpc", Rpc)
    monkeypatch.setattr(adapter, "Orders", lambda *_: made)
    return made


@pytest.fixture
def erp(orders: Orders) -> Iterator[TrytonErp]:
    given: dict[str, Any] = {"kind": "tryton", "url": "http://127.0.0.1:1", "database": "x", "user": "x"}
    made = TrytonErp(
        TrytonSettings.model_validate(
            {**given, "password": SecretStr("x"), "web_shop": "Web", "payment_term": "Direct"}
        )
    )
    yield made
    made.close()


def problems(found: Mapping[ErpRef, Observed]) -> list[ErpRef]:
    assert all("Jane" not in one.problem for one in found.values())
    return [ref for ref, one in found.items() if one.problem and one.milestone is None]


def test_one_that_cannot_be_read_is_there_with_a_problem(erp: TrytonErp) -> None:
    found = erp.observe([of(number) for number in range(1, 30)])
    assert [*found] == [of(number) for number in range(1, 21)]
    assert problems(found) == [of(BROKEN)]


def test_so_it_is_in_what_is_found_and_in_pages(erp: TrytonErp) -> None:
    assert problems(dict(erp.find("order", {}))) == [of(BROKEN)]
    page = dict(erp.page(["order"], "", 10).found)
    assert (len(page), problems(page)) == (10, [of(BROKEN)])


def test_what_tryton_fails_to_read_of_all_stops_all(erp: TrytonErp, orders: Orders) -> None:
    orders.down = True
    with pytest.raises(StopError):
        erp.observe([of(1), of(2)])


def test_what_became_of_one_that_cannot_be_read_is_unclear(erp: TrytonErp) -> None:
    found = erp.progress([step(number, "create") for number in (1, BROKEN)])
    assert [one.how_far for one in found] == [HowFar.DONE, HowFar.UNCLEAR]


def test_a_read_that_fails_after_a_write_is_no_refusal(erp: TrytonErp, orders: Orders) -> None:
    """A failed read must not say that nothing has changed: `progress` is asked later."""
    results = erp.apply([step(number, "create") for number in (1, BROKEN)], now() + timedelta(seconds=30))
    assert orders.written == ["1", str(BROKEN)]
    assert [type(one.error) if isinstance(one, NotDone) else one for one in results] == [RetryError, RetryError]
    assert not any("Jane" in str(one) for one in results)


def test_a_read_that_fails_before_a_write_holds_its_document_alone(erp: TrytonErp, orders: Orders) -> None:
    results = erp.apply([step(number, "amend") for number in range(1, 21)], now() + timedelta(seconds=30))
    held = [number for number, one in enumerate(results, 1) if isinstance(one, NotDone)]
    assert held == [BROKEN]
    assert isinstance(results[BROKEN - 1], NotDone)
    assert len(orders.written) == 19
