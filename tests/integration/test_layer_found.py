"""Looking makes no middle layer. One that this release or this user cannot work with is named, with the next step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from schemas.model.errors import OrdertapError, SettingsError
from sink import wiring
from sink.__main__ import app
from sink.commands.options import settings_of
from sink.database import connect, schema_of
from sink.layer import migrate
from sink.operations.check import check
from tests.fix_erp import run, write_sink_settings

SCHEMA = "SELECT to_regnamespace('ordertap_shop')::text"
LOOKS = ["status", "held", "show S-1", "list", "plan", "brake", "offsets show", "reconcile", "pause --person Ada"]


@pytest.fixture
def config(database: str, profile_path: str, tmp_path: Path) -> Path:
    erp = {"url": "sqlite://", "mapping": str(Path(__file__).parents[2] / "deploy/erp/mapping.yaml")}
    return write_sink_settings(tmp_path, profile_path, database, erp)


def refused(config: Path, *command: str) -> OrdertapError:
    error = CliRunner().invoke(app, [*command, "--config", str(config)]).exception
    assert isinstance(error, OrdertapError), error
    return error


def checked(config: Path) -> OrdertapError | None:
    """What `sink check` says of the middle layer."""
    looks = wiring.looks(settings_of(config))
    (found,) = check({"middle layer": looks["middle layer"]})
    return found.error


def test_a_look_makes_no_middle_layer_and_check_does(config: Path, database: str) -> None:
    """With a wrong `database_url`, an empty one would pass for a sink without documents."""
    for command in LOOKS:
        error = refused(config, *command.split())
        assert error.message == f"the database {database.rpartition('/')[2]} has no middle layer of shop shop", command
        assert "`sink check` or `sink run` makes it" in error.hint
    assert run(database, SCHEMA) == [(None,)]
    assert checked(config) is None
    assert run(database, SCHEMA) == [("ordertap_shop",)]
    assert CliRunner().invoke(app, ["held", "--config", str(config)]).exit_code == 0


def test_a_later_release_is_named(config: Path, database: str) -> None:
    assert checked(config) is None
    run(database, "INSERT INTO ordertap_shop.migration VALUES (999)")
    found = [checked(config), refused(config, "held"), refused(config, "migrate"), refused(config, "run")]
    assert [(one and one.hint) for one in found] == ["run the newer release"] * 4


@pytest.fixture
def poor(database: str) -> Iterator[str]:
    """A user who has only what everybody has."""
    user = f"poor_{database.rpartition('/')[2]}"
    run(database, f"CREATE ROLE {user} LOGIN")
    yield user
    run(database, f"REASSIGN OWNED BY {user} TO postgres; DROP OWNED BY {user}")
    run(database, f"DROP ROLE {user}")


def test_what_the_user_may_not_do_is_named_with_what_fix_it(
    database: str, poor: str, profile_path: str, tmp_path: Path
) -> None:
    name = database.rpartition("/")[2]
    mapping = str(Path(__file__).parents[2] / "deploy/erp/mapping.yaml")
    url = database.replace("postgres@", f"{poor}@")
    config = write_sink_settings(tmp_path, profile_path, url, {"url": "sqlite://", "mapping": mapping})

    def after(statement: str) -> tuple[str, str]:
        run(database, statement)
        error = checked(config)
        assert isinstance(error, SettingsError)
        return error.message, error.hint

    fix = f"`ALTER DATABASE {name} OWNER TO {poor}`"
    refuses = f"the database {name} does not let user {poor} work: "
    message, hint = after(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")
    assert "CONNECT" in message
    message, hint = after(f"GRANT CONNECT ON DATABASE {name} TO {poor}")
    assert message == f"{refuses}permission denied for database {name}"
    assert fix in hint
    with closing(connect(database, schema_of("shop"))) as owner:
        migrate(owner, "shop")
    assert after("SELECT 1")[0] == f"{refuses}permission denied for schema ordertap_shop"
    assert refused(config, "held").hint == hint
    rights = f"GRANT USAGE ON SCHEMA ordertap_shop TO {poor}; GRANT ALL ON ALL TABLES IN SCHEMA ordertap_shop TO {poor}"
    assert after(rights) == (f"{refuses}it may not create schemas, or does not own all tables", hint)
    assert "does not own" in refused(config, "run").message
    tables = run(database, "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'ordertap_shop'")
    for (table,) in tables:
        run(database, f"ALTER TABLE ordertap_shop.{table} OWNER TO {poor}")
    run(database, f"ALTER DATABASE {name} OWNER TO {poor}")
    assert checked(config) is None
