"""`capture init` and `capture drop`: make what capture needs on the server and in Kafka, and remove it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from capture.commands.check_tables import (
    Publication,
    add_table,
    create_publication,
    keyless,
    publication_of,
    wanted_tables,
)
from capture.commands.findings import literal, quoted, quoted_table
from capture.commands.proposal import Proposal
from capture.kafka import broker
from capture.kafka.producer import Record, TransactionalProducer
from capture.plan import Plan
from capture.position import accounted_key
from capture.postgres import catalogue
from capture.postgres.replication import Connection, database_errors, drop_slot, slot_state
from schemas.model.errors import OrdertapError, SettingsError

OURS: Final = "made by ordertap"
"""The comment on a publication of ours; `capture drop` leaves others alone."""


def init(plan: Plan, keyless_too: bool = False) -> Iterator[str]:
    """Makes the publication and topics that are missing, and says each thing that it does. SettingsError, with nothing
    made, if the shop could then no longer update a table (unless `keyless_too`)."""
    connection = plan.server.connect()
    try:
        there, wanted = publication_of(connection, plan.publication), wanted_tables(connection, plan)
        published = _published(connection, plan)
        statements = _publication(plan, there, published, wanted)
        yield from [] if statements else [f"publication {plan.publication} is there, with all tables"]
        warnings = list(_warnings(connection, plan, statements, published, wanted))
        yield from warnings
        if warnings and not keyless_too:
            hint = "do what is listed above first; or use --keyless, if rows are only ever inserted there"
            raise SettingsError("nothing was made: the shop could no longer change tables without key", hint)
        for statement in statements:
            yield statement
            _execute(connection, statement)
        tables, without = plan.topics.of_each(_captured(plan, _published(connection, plan)))
    finally:
        connection.close()
    yield from (f"{error.message}; it is not captured: {error.hint}" for error in without.values())
    made = plan.topics.create(tables.values())
    yield from (f"topic {topic} made" for topic in made)
    yield from [] if made else [f"all {len(tables) + len(plan.topics.own)} topics are there"]
    yield f"slot {plan.options.slot} is made by the first `capture run`, together with the snapshot"


def script(plan: Plan) -> Iterator[str]:
    """For a DBA: the SQL that is still missing (all of it if we may not ask the database), then the topics. It can be
    run again. Lines that are not SQL are comments."""
    yield f"-- Run this as a superuser in the shop's database: psql --dbname {plan.server.database}"
    try:
        connection = plan.server.connect()
    except OrdertapError as error:
        first = error.message.splitlines()[0]
        yield f"-- (what already exists could not be read: {first})"
        tables = plan.selection.named
        if plan.selection.every_table or tables:
            yield from _role(plan, tables)
            yield from _guarded_publication(plan, tables)
        else:
            yield "-- (so it is not known which tables the settings match)"
        yield from _topics_script(plan, _captured(plan, tables))
        return
    try:
        yield from _server_and_role(connection, plan)
        missing = [*_missing(connection, plan)]
        tables = _published(connection, plan) or wanted_tables(connection, plan)
    finally:
        connection.close()
    missing += _topics_script(plan, _captured(plan, tables))
    yield from missing or [f"-- nothing to make: publication {plan.publication} and all topics are there"]


def _server_and_role(connection: Connection, plan: Plan) -> Iterator[str]:
    level, superuser = _row(connection, "SELECT current_setting('wal_level'), rolsuper FROM pg_roles"
                            " WHERE rolname = current_user")  # fmt: skip
    if level != "logical":
        yield "ALTER SYSTEM SET wal_level = logical; -- then restart the server"
    if not superuser:
        every = plan.selection.every_table
        yield from _role(plan, _published(connection, plan) if every else wanted_tables(connection, plan))


def _missing(connection: Connection, plan: Plan) -> Iterator[str]:
    publication = publication_of(connection, plan.publication)
    published, wanted = _published(connection, plan), wanted_tables(connection, plan)
    statements = _publication(plan, publication, published, wanted)
    yield from _warnings(connection, plan, statements, published, wanted)
    yield from statements


def _warnings(
    connection: Connection, plan: Plan, statements: Sequence[str], published: Sequence[str], wanted: Sequence[str]
) -> Iterator[str]:
    """Comments above the statements, naming tables that the shop could no longer update."""
    if statements:
        new = None if plan.selection.every_table else [table for table in wanted if table not in published]
        yield from (f"-- {found.what}; before that: {found.remedy}" for found in keyless(connection, new))


def _row(connection: Connection, statement: str) -> Any:
    with database_errors("looking at the server"), connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()


def _role(plan: Plan, tables: Sequence[str]) -> Iterator[str]:
    """The least rights: log in, replicate, read the tables. Reading a publication needs none."""
    role, name = quoted(plan.server.user), literal(plan.server.user)
    yield (
        f"DO $$BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {name})"
        f" THEN CREATE ROLE {role}; END IF; END$$;"
    )
    yield f"ALTER ROLE {role} LOGIN REPLICATION; -- \\password {role} sets its password, shown in no log"
    yield f"GRANT CONNECT ON DATABASE {quoted(plan.server.database)} TO {role};"
    if not tables and plan.selection.every_table:
        yield f"GRANT pg_read_all_data TO {role}; -- all tables are captured: table_include_list is empty"
    if not tables:
        return
    for schema in sorted({table.split(".", 1)[0] for table in tables}):
        yield f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {role};"
    yield f"GRANT SELECT ON TABLE {', '.join(quoted_table(table) for table in tables)} TO {role};"


def _publication(plan: Plan, there: Publication | None, published: Sequence[str], wanted: Sequence[str]) -> list[str]:
    if there is None:
        if not plan.selection.every_table and not wanted:
            raise SettingsError(
                f"database {plan.server.database} has no table that matches table_include_list and table_exclude_list",
                "correct them, or make the tables first",
            )
        return [create_publication(plan, wanted), _comment(plan)]
    named = plan.selection.named if there.all_tables or not plan.selection.listed else wanted
    return [add_table(plan, table) for table in named if table not in published]


def _guarded_publication(plan: Plan, tables: Sequence[str]) -> Iterator[str]:
    there = f"EXISTS (SELECT FROM pg_publication WHERE pubname = {literal(plan.publication)})"
    yield f"DO $$BEGIN IF NOT {there} THEN {create_publication(plan, tables)} {_comment(plan)} END IF; END$$;"


def _comment(plan: Plan) -> str:
    return f"COMMENT ON PUBLICATION {quoted(plan.publication)} IS {literal(OURS)};"


def _published(connection: Connection, plan: Plan) -> list[str]:
    return [table.relation.table for table in catalogue.published_tables(connection, plan.publication)]


def _captured(plan: Plan, tables: Sequence[str]) -> list[str]:
    return [table for table in tables if plan.selection.table(table)]


def _topics_script(plan: Plan, tables: Sequence[str]) -> Iterator[str]:
    try:
        topics, without = plan.topics.of_each(tables)
        missing = plan.topics.missing(topics.values())
    except OrdertapError as error:
        yield f"-- (Kafka did not answer: {error.message})"
        return
    yield from (f"-- {error.message}; it is not captured: {error.hint}" for error in without.values())
    for name, making in missing:
        settings = ", ".join(f"{key}={value}" for key, value in making.config.items())
        numbers = f"{making.partitions} partitions, {making.replication} replicas"
        yield f"-- topic {name} would be made: {numbers}, {settings}"


def _execute(connection: Connection, statement: str) -> None:
    try:
        with database_errors("making the publication"), connection.cursor() as cursor:
            cursor.execute(statement)
    except SettingsError as error:
        hint = "have a DBA run what `capture init --dry-run` prints, then run `capture init` again for the topics"
        raise SettingsError(error.message, hint) from None


class Removal(Proposal):
    """What `capture drop` removes."""

    def __init__(self, plan: Plan, with_topics: bool) -> None:
        """SettingsError while a capture runs."""
        self._with_topics = with_topics
        super().__init__(plan)

    def _look(self) -> None:
        plan = self._plan
        connection = self._leadership.connection
        leads = self._leadership.acquire()
        slot = slot_state(connection, plan.options.slot)
        if not leads or (slot is not None and slot.active_pid is not None):
            pid = "" if slot is None or slot.active_pid is None else f" (process {slot.active_pid} of the server)"
            raise SettingsError(f"capture is running: it reads slot {plan.options.slot}{pid}", "stop it, then drop")
        self._slot = slot
        self._publication = publication_of(connection, plan.publication)
        captured = _captured(plan, _published(connection, plan) or plan.selection.named)
        tables = list(plan.topics.of_each(captured)[0].values())
        places = (plan.topics.position, plan.topics.former_position)
        self._positions = [name for name in places if plan.name.encode() in plan.cluster.last_values(name)]
        existing = plan.cluster.partitions()
        there = [name for name in (*plan.topics.own, plan.topics.former_position, *tables) if name in existing]
        self._topics, self._left = (there, []) if self._with_topics else ([], there)

    def lines(self) -> Iterator[str]:
        plan = self._plan
        if self._slot is not None:
            yield f"slot {plan.options.slot}, which holds {self._slot.held_bytes} bytes of the shop's log"
        if self._drops_publication:
            yield f"publication {plan.publication}"
        elif self._publication is not None:
            yield f"(publication {plan.publication} stays: `capture init` did not make it, or it is not our role's)"
        if self._positions:
            where = " and ".join(self._positions)
            yield f"the position of {plan.name} in topic {where}: the next start takes a new snapshot"
        yield from (f"topic {name} with all its records" for name in self._topics)
        if self._left:
            yield f"({len(self._left)} topics stay: --topics deletes them, too)"

    @property
    def empty(self) -> bool:
        """Whether nothing would go."""
        return not (self._slot or self._drops_publication or self._positions or self._topics)

    @property
    def _drops_publication(self) -> bool:
        return self._publication is not None and self._publication.comment == OURS and self._publication.owned

    def execute(self) -> Iterator[str]:
        plan = self._plan
        if self._slot is not None:  # first, because the slot is what fills a disk
            drop_slot(self._leadership.connection, plan.options.slot)
            yield f"slot {plan.options.slot} dropped"
        if self._positions:
            producer = TransactionalProducer(plan.cluster, plan.transactional_id)
            producer.begin_transaction()
            keys = (plan.name.encode(), accounted_key(plan.name.encode()))
            producer.produce([Record(name, 0, key, None, []) for name in self._positions for key in keys])
            producer.commit(30.0)
            yield f"position of {plan.name} deleted"
        if self._drops_publication:
            _execute(self._leadership.connection, f"DROP PUBLICATION {quoted(plan.publication)};")
            yield f"publication {plan.publication} dropped"
        if self._topics:
            broker.delete_topics(plan.cluster, self._topics)
            yield f"{len(self._topics)} topics deleted"
