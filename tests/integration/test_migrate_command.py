"""`sink migrate` and `sink run` on a middle layer of an earlier release, whose rows are read from Kafka again."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from confluent_kafka import TopicPartition

from deploy.embedded import Postgres
from schemas.model.errors import ExitCode
from sink.layer import VERSION
from tests.integration.stager_feed import ORDERS, Feed, order
from tests.integration.test_migrations import of_the_release_before, rows
from tests.programs import run, write_settings

ROOT = Path(__file__).parents[2]
FILL = f"`capture signal snapshot {ORDERS}`"


class Old:
    """A layer of the release before, with what its sink had read from Kafka."""

    def __init__(self, folder: Path, servers: str, prefix: str, url: str, elsewhere: str, erp: str) -> None:
        self.url = url
        of_the_release_before(url).close()
        self.feed = Feed(folder, servers, prefix, elsewhere)  # its own layer is another one
        self.feed.commit(2_000, order(2, 2_000))
        self.feed.commit(3_000, order(4, 3_000))
        assert self.feed.profile  # writes its folder
        settings = {
            "shop": "shop",
            "profile": f"{folder}/profile",
            "topic_prefix": prefix,
            "bootstrap_servers": servers,
            "schema_registry_url": (folder / "registry").as_uri(),
            "database_url": url,
            "erp": {"url": erp, "mapping": str(ROOT / "deploy/erp/mapping.yaml")},
            "prices_owner": "shop",
            "health_port": 0,
        }
        self.config = write_settings(folder / "settings.yaml", sink=settings)

    def loses_its_beginning(self) -> None:
        """Deletes the first record, as retention does."""
        for future in self.feed.admin.delete_records([TopicPartition(self.feed.topic(ORDERS), 0, 1)]).values():
            future.result(10)

    def says(self, *command: str) -> str:
        """The output of a command that succeeds."""
        ended = run("sink", *command, config=self.config)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def version(self) -> tuple[object, ...]:
        with closing(psycopg2.connect(self.url)) as connection:
            old = rows(
                connection, "SELECT max(version), to_regnamespace('ordertap_shop') IS NULL FROM ordertap.migration"
            )
        return old[0]


@pytest.fixture
def old(
    tmp_path: Path,
    bootstrap_servers: str,
    prefix: str,
    database: str,
    postgres: Postgres,
    new_database: Callable[[Postgres, str], str],
    erp_url: str,
) -> Old:
    return Old(tmp_path, bootstrap_servers, prefix, database, new_database(postgres, "elsewhere"), erp_url)


def test_what_would_be_done_is_said_and_then_done(old: Old) -> None:
    dry = old.says("migrate")
    assert dry.splitlines() == [
        f"the middle layer of shop shop: from schema version 2 to {VERSION}",
        f"staged rows are dropped and read again from Kafka: {ORDERS}",
        "ledger, accounts, history and decisions stay; nothing is planned until the copy has read past them",
        "nothing was changed; --execute does it",
    ]
    assert old.version() == (2, True)
    refused = run("sink", "held", config=old.config)
    assert refused.returncode == ExitCode.CONFIG
    assert "`sink migrate` says what changes with it" in refused.stderr
    done = old.says("migrate", "--execute")
    assert done.splitlines()[-1] == "done; next: start `sink run`"
    assert old.says("held")
    again = old.says("migrate", "--execute")
    assert again == f"the middle layer of shop shop has schema version {VERSION}, that of this release\n"


def test_a_run_does_not_drop_what_cannot_be_read_again_and_a_person_may(old: Old) -> None:
    old.loses_its_beginning()
    refused = run("sink", "run", config=old.config)
    assert refused.returncode == ExitCode.CONFIG
    assert f"the topics of {ORDERS} do not reach back to their beginning" in refused.stderr
    assert f"`sink migrate --execute` does it anyway; after that, {FILL}" in refused.stderr
    assert old.version() == (2, True)
    dry = old.says("migrate")
    assert f"gap: {ORDERS}: topic {old.feed.topic(ORDERS)} [0] begins at offset 1" in dry
    assert f"next: {FILL}, after the migration" in dry
    done = old.says("migrate", "--execute")
    assert done.splitlines()[-1] == f"done; next: start `sink run`, then {FILL}"
    told = old.says("accept", "gap", ORDERS, "--person", "Ann")
    assert f"lost: topic {old.feed.topic(ORDERS)} [0] begins at offset 1" in told
