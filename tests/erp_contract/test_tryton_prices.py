"""How Tryton's adapter finds prices: no index has our keys, so a search by them reads every line."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from deploy.tryton import provision
from deploy.tryton.screen import Screen
from deploy.tryton.server import Tryton
from sink.erp.kinds import ErpRef
from sink.erp.tryton import prices
from sink.erp.tryton.rpc import Rpc
from tests.erp_contract.records import PRICE, Sink, changed, create, refused, step
from tests.erp_contract.tryton_target import TrytonTarget

LINE = "product.price_list.line"
REFS = [ErpRef("price", f"shop/price/{number}/1") for number in range(5)]


@pytest.fixture
def admin(tryton: Tryton) -> Screen:
    return Screen(tryton.url, tryton.database, provision.ADMIN, provision.ADMIN_PASSWORD)


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records searches by key, and the pages read."""
    said: list[str] = []
    search = Rpc.search

    def heard(rpc: Rpc, model: str, domain: Sequence[Any], *others: Any) -> Any:
        if model == LINE and "like" in str(domain):
            said.append("search")
        elif model == LINE and "'>'" in str(domain):
            said.append("page")
        return search(rpc, model, domain, *others)

    monkeypatch.setattr(Rpc, "search", heard)
    return said


def made(sink: Sink, *refs: ErpRef) -> None:
    assert refused(sink.apply(*(create(PRICE, ref) for ref in refs))) == [""] * len(refs)


def test_the_keys_of_all_prices_are_read_once(
    tryton_place: TrytonTarget, searched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made(Sink(tryton_place.adapter()), *REFS)
    searched.clear()
    monkeypatch.setattr(prices, "_PAGE", 2)
    fresh = tryton_place.adapter()
    assert fresh.observe(REFS[:3]).keys() == {*REFS[:3]}
    assert fresh.observe(REFS).keys() == {*REFS}
    assert searched == ["page"] * 3


def test_prices_are_made_without_a_search(tryton_place: TrytonTarget, searched: list[str]) -> None:
    made(Sink(tryton_place.adapter()), *REFS)
    assert "search" not in searched


def test_what_another_has_made_since_is_found(tryton_place: TrytonTarget, searched: list[str]) -> None:
    one, other = Sink(tryton_place.adapter()), Sink(tryton_place.adapter())
    made(one, REFS[0])
    assert [*other.erp.observe(REFS)] == REFS[:1]
    made(one, *REFS[1:3])
    searched.clear()
    assert [*other.erp.observe(REFS[:3])] == REFS[:3]
    assert "search" not in searched
    assert refused(other.apply(create(PRICE, REFS[1], 9))) == ["ConflictError"]


def test_what_is_not_where_it_was_is_looked_for(tryton_place: TrytonTarget, admin: Screen) -> None:
    """One price was deleted and made again by another process. Another has its key typed onto a line that was read
    before."""
    one, other = Sink(tryton_place.adapter()), Sink(tryton_place.adapter())
    made(one, *REFS[:2])
    assert [*other.erp.observe(REFS)] == REFS[:2]
    first, second = admin.rows(LINE, [], "formula")
    admin(LINE, "delete", [first["id"]])
    made(one, REFS[0])
    assert other.erp.observe(REFS[:1])[REFS[0]].reference != str(first["id"])
    admin(LINE, "write", [second["id"]], {"formula": second["formula"].replace(REFS[1].external, REFS[2].external)})
    assert [*other.erp.observe(REFS[:3])] == [REFS[0], REFS[2]]


def test_of_two_lines_with_one_key_the_older_one_is_the_price(
    tryton_place: TrytonTarget, admin: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clerk's copy has the key, too, and the two lines are on different pages."""
    made(Sink(tryton_place.adapter()), *REFS)
    ids = [row["id"] for row in admin.rows(LINE, [], "id")]
    admin(LINE, "copy", ids)
    monkeypatch.setattr(prices, "_PAGE", 2)
    fresh = tryton_place.adapter()
    assert [int(seen.reference) for seen in fresh.observe(REFS).values()] == ids


def test_of_more_prices_than_are_kept_in_mind_the_others_are_searched_for(
    tryton_place: TrytonTarget, searched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prices, "_MOST", 2)
    monkeypatch.setattr(prices, "_PAGE", 1)
    made(Sink(tryton_place.adapter()), *REFS)
    fresh = Sink(tryton_place.adapter())
    assert fresh.erp.observe(REFS).keys() == {*REFS}
    assert "search" in searched
    dearer = changed(PRICE, amount=Decimal(20))
    steps = [step("amend", ref, dearer, seen, 2) for ref, seen in fresh.erp.observe(REFS).items()]
    assert refused(fresh.apply(*steps)) == [""] * len(REFS)


def test_a_price_that_a_clerk_changes_after_the_look_stays(
    tryton_place: TrytonTarget, admin: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that was just looked at is written without another look: its stamp makes Tryton refuse the write."""
    sink = Sink(tryton_place.adapter())
    made(sink, *REFS[:2])
    dearer = changed(PRICE, amount=Decimal(20))
    steps = [step("amend", ref, dearer, seen, 2) for ref, seen in sink.erp.observe(REFS[:2]).items()]
    first, _ = admin.rows(LINE, [], "formula")
    admin(LINE, "write", [first["id"]], {"formula": first["formula"].replace("10.00", "8.00")})
    calls: list[str] = []
    send = Rpc.send

    def heard(rpc: Rpc, session: str, method: str, *others: Any) -> Any:
        calls.append(method)
        return send(rpc, session, method, *others)

    monkeypatch.setattr(Rpc, "send", heard)
    assert refused(sink.apply(*steps)) == ["ConflictError", ""]
    assert next(one for one in calls if LINE in one) == f"model.{LINE}.write"
    amounts = [seen.record.fields["amount"] for seen in sink.erp.observe(REFS[:2]).values()]
    assert amounts == [Decimal(8), Decimal(20)]
