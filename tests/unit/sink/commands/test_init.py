"""What `sink init` makes and prints, for an ERP that lacks some things."""

from functools import partial

import pytest
from typer.testing import CliRunner

from sink.__main__ import app
from sink.commands.init import lines
from sink.erp.contract import Lack, RetryError, StopError
from sink.operations.init import init


class Supplies:
    """An ERP that lacks what it was told, until it is made."""

    def __init__(self, *lacking: str, forbidden: tuple[str, ...] = (), away: tuple[str, ...] = ()) -> None:
        self.lacking, self.forbidden, self.away = [*lacking], forbidden, away

    def lacks(self) -> list[Lack]:
        by_hand = Lack("no countries", "load them")
        return [by_hand, *(Lack(f"no {one}", "a new one", partial(self._make, one)) for one in self.lacking)]

    def _make(self, one: str) -> None:
        if one in self.forbidden:
            raise StopError("you may not", "ask somebody who may")
        if one in self.away:
            raise RetryError("it does not answer")
        self.lacking.remove(one)

    def close(self) -> None:
        """Nothing is open."""


def test_a_dry_run_makes_nothing() -> None:
    erp = Supplies("shop", "tax")
    said = [*lines(init(erp, execute=False), execute=False)]
    assert said == [
        "no shop\n    a new one",
        "no tax\n    a new one",
        "by hand: no countries\n    next: load them",
        "nothing was changed; --execute makes these 2",
    ]
    assert erp.lacking == ["shop", "tax"]


def test_what_is_refused_is_named_and_stops_that_one_alone() -> None:
    erp = Supplies("shop", "tax", "list", forbidden=("tax",))
    said = [*lines(init(erp, execute=True), execute=True)]
    assert said == [
        "made: no shop",
        "NOT made: no tax: you may not\n    next: ask somebody who may",
        "made: no list",
        "by hand: no countries\n    next: load them",
        "2 of 3 made; next: `sink check`",
    ]
    assert erp.lacking == ["tax"]


def test_it_is_made_once() -> None:
    erp = Supplies("shop")
    init(erp, execute=True)
    assert [*lines(init(erp, execute=True), execute=True)][-1] == "nothing is left to make"


def test_an_erp_that_goes_away_ends_it_and_the_rest_is_made_the_next_time() -> None:
    erp = Supplies("shop", "tax", "list", away=("tax",))
    with pytest.raises(RetryError):
        init(erp, execute=True)
    erp.away = ()
    assert init(erp, execute=True).made == ["no tax", "no list"]


@pytest.mark.parametrize("options", [("--user", "admin"), ("--password-file", "x")])
def test_a_log_in_is_a_name_and_a_file(options: tuple[str, str]) -> None:
    ended = CliRunner().invoke(app, ["init", *options])
    assert ended.exit_code == 2
    assert "give both" in ended.output
