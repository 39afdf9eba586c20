"""What `sink init` makes in the demo's and the tests' Tryton is made once, and kept with the company's data."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.embedded import Postgres
from deploy.tryton import provision
from deploy.tryton.server import Tryton
from sink.erp.contract import Sells
from sink.erp.tryton.settings import TrytonSettings
from sink.erp.tryton.setup import TrytonSetup


@pytest.mark.usefixtures("tryton_environment")
def test_the_second_start_makes_nothing_and_lacks_nothing(postgres: Postgres, tmp_path: Path) -> None:
    said: list[str] = []
    for name in ("first", "second"):
        said.clear()
        database = f"{name}_{uuid4().hex[:8]}"
        with Tryton(tmp_path / name, postgres, said.append, database=database) as tryton:
            settings = TrytonSettings.model_validate(tryton.settings())
            with closing(TrytonSetup(settings, Sells(price_lists=provision.PRICE_LISTS))) as setup:
                assert setup.lacks() == []
    assert said == []
