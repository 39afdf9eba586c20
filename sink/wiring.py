"""Makes the parts from the settings. Only this file and the command line read settings."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from schemas.model.commits import index_topic
from schemas.model.errors import OrdertapError, SettingsError
from schemas.registry.registry import Registry, open_registry
from schemas.writing.envelope import topic_name
from sink import layer
from sink.apply.rules import Rules
from sink.apply.worker import Worker
from sink.database import Connection, connect, schema_of
from sink.documents.profile import Profile, load_profile
from sink.erp.contract import Erp, ErpSetup, LogIn, Sells
from sink.erp.sql.mapping import load_mapping
from sink.erp.tryton.settings import TrytonSettings
from sink.intake.consumer import ShopConsumer, topic_names
from sink.intake.decoder import compile_decoder
from sink.intake.decoding import RegistryDecoders
from sink.intake.offsets import GroupOffsets
from sink.operations import check, migration
from sink.operations.sells import sells
from sink.pipeline import Parts
from sink.planning.brake import Brake
from sink.planning.policy import Policy
from sink.reconcile.report import Report
from sink.reconcile.sides import reconcile
from sink.reconcile.source import OF_THE_SHOP, Say
from sink.settings import SinkSettings, SqlErpSettings
from sink.staging import indexes
from sink.staging.schema import Catalogue
from sink.staging.stager import Stager
from sink.staging.writer import CopyWriter


def middle(settings: SinkSettings) -> Connection:
    """A connection to the shop's middle layer in our schema version. SettingsError if there is no layer: with a wrong
    `database_url`, one that was made just for a look would pass for an empty sink."""
    connection = not_entered(settings)
    try:
        layer.enter(connection, settings.shop)
    except BaseException:
        connection.close()
        raise
    return connection


def made_middle(settings: SinkSettings) -> Connection:
    """The same, for verbs that come before `sink run`. Creates the layer if there is none."""
    with closing(not_entered(settings)) as first:
        if layer.is_new(first, settings.shop):
            layer.migrate(first, settings.shop)
    return middle(settings)


def migrate(settings: SinkSettings) -> None:
    """The migration that `sink run` does at its start."""
    with closing(not_entered(settings)) as connection:
        migration.migrate_unasked(connection, settings.shop, group(settings), tables(settings))
        layer.check_rights(connection, settings.shop)


def not_entered(settings: SinkSettings) -> Connection:
    """A connection to the middle layer in whatever version, for a migration."""
    return connect(settings.database_url.get_secret_value(), schema_of(settings.shop))


def shop(settings: SinkSettings) -> Connection | None:
    """A connection to the shop's database, if the settings name one."""
    return _shop(settings.shop_url) if settings.shop_url else None


def _shop(url: SecretStr) -> Connection:
    return connect(url.get_secret_value(), OF_THE_SHOP, "the shop (shop_url)")


def profile(settings: SinkSettings) -> Profile:
    """The shop's profile."""
    return load_profile(settings.profile)


def registry(settings: SinkSettings) -> Registry:
    """The schema registry."""
    options = {name: value.get_secret_value() for name, value in settings.schema_registry.items()}
    return open_registry(settings.schema_registry_url, options)


def tables(settings: SinkSettings) -> dict[str, str]:
    """Default topic → table of the profile."""
    return {topic_name(settings.topic_prefix, table): table for table in profile(settings).tables}


def topic(settings: SinkSettings, table: str) -> str:
    """A table's default topic."""
    return topic_name(settings.topic_prefix, table)


def topics(settings: SinkSettings) -> list[str]:
    """The topics that are read."""
    return topic_names(settings.topic_prefix, profile(settings).tables)


def group(settings: SinkSettings) -> GroupOffsets:
    """The sink's consumer group, on the tables' topics. The index of commits is not among them: it is read on from the
    copy's position, whatever the group's offset is."""
    of_tables = set(topics(settings)) - {index_topic(settings.topic_prefix)}
    return GroupOffsets(_kafka(settings), settings.group, of_tables)


def erp(settings: SinkSettings) -> Erp:
    """The ERP's adapter."""
    return ADAPTERS[settings.erp.kind](settings.erp, settings.workers + 1)


def _sql(settings: SqlErpSettings, calls: int) -> Erp:
    from sink.erp.sql.adapter import SqlErp  # importing SQLAlchemy takes 0.3 s, and most commands do not need it

    mapping = load_mapping(Path(settings.mapping))
    return SqlErp(settings.url.get_secret_value(), mapping, settings.timeout_seconds, calls)


def _tryton(settings: TrytonSettings, calls: int) -> Erp:
    from sink.erp.tryton.adapter import TrytonErp  # imports an HTTP library that most commands do not need

    return TrytonErp(settings, calls)


def _tryton_setup(settings: TrytonSettings, sells: Sells, other: LogIn | None) -> ErpSetup:
    from sink.erp.tryton.setup import TrytonSetup

    return TrytonSetup(settings, sells, other)


SETUPS: Final[Mapping[str, Callable[[Any, Sells, LogIn | None], ErpSetup]]] = {"tryton": _tryton_setup}
"""ERPs that `sink init` can set up, by `erp.kind`. Each takes its settings, what the shop sells, and another log-in."""


def setup(settings: SinkSettings, user: str = "", password_file: Path | None = None) -> ErpSetup | None:
    """The set-up of the ERP, logged in as `user` if given. None: this kind of ERP has none."""
    made = SETUPS.get(settings.erp.kind)
    if made is None:
        return None
    other = LogIn(user, SecretStr(_typed(password_file))) if user else None
    return made(settings.erp, _sells(settings), other)


def _sells(settings: SinkSettings) -> Sells:
    with closing(made_middle(settings)) as connection:
        return sells(connection, profile(settings), settings.shop)


def _typed(file: Path | None) -> str:
    """A secret from a file."""
    try:
        return file.read_text("utf-8").strip() if file else ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{file} cannot be read: {reason}", "the file must contain only the password") from None


ADAPTERS: Final[Mapping[str, Callable[[Any, int], Erp]]] = {"sql": _sql, "tryton": _tryton}
"""Adapters by `erp.kind`. Made from its settings and the number of concurrent calls."""


def rules(settings: SinkSettings) -> Rules:
    """The settings for applying, as plain values."""
    return Rules(
        shop=settings.shop,
        policy=Policy(
            settings.prices_owner,
            settings.absent,
            settings.order_goal,
            settings.placeholder_sku if settings.unknown_sku == "placeholder" else "",
            settings.refund_goal,
        ),
        apply=settings.mode == "apply",
        customers=settings.customers,
        collective_account=settings.collective_account,
        account_prefix=f"{settings.shop}-" if settings.account_prefix is None else settings.account_prefix,
        account_from=settings.account_from,
        settle_seconds=settings.settle_seconds,
        recheck_seconds=settings.recheck_seconds,
        lease_seconds=settings.lease_seconds,
        require_snapshot=settings.require_snapshot,
        batch=settings.batch,
        brake=Brake(
            settings.brake_orders,
            settings.brake_price_percent,
            settings.brake_price_share,
            settings.brake_prices,
            settings.brake_window_seconds,
        ),
        start_at=settings.start_at,
    )


def parts(settings: SinkSettings) -> Parts:
    """The parts of a running sink. Each thread makes its own connection, consumer or worker from them."""
    mapping, the_erp, the_rules = profile(settings), erp(settings), rules(settings)
    # Topics of the profile as loaded now, even if its files have changed when a consumer is made again.
    read, index = topic_names(settings.topic_prefix, mapping.tables), index_topic(settings.topic_prefix)
    # Two containers may have the same host name and pid 1; the random part makes their leases differ.
    owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    properties = {**_kafka(settings), "group.id": settings.group}
    return Parts(
        connect=lambda: middle(settings),
        consumer=lambda staged: ShopConsumer(properties, read, index, staged),
        stager=_stager(settings, mapping),
        worker=lambda connection, number: Worker(connection, mapping, the_erp, the_rules, f"{owner}:{number}"),
        indexes=lambda stop: indexes.keep(lambda: middle(settings), mapping, stop),
        workers=settings.workers,
        applies=the_rules.apply,
    )


def _stager(settings: SinkSettings, mapping: Profile) -> Stager:
    schemas = registry(settings)
    usual = {table: topic_name(settings.topic_prefix, table) for table in mapping.tables}
    reads = {table: frozenset(mapping.columns.get(table, ())) or None for table in mapping.tables}

    def columns(table: str) -> Mapping[str, str]:
        """The columns of a table without records yet: from the profile, or else from the newest schema that capture
        registered."""
        schema = None if mapping.columns.get(table) else schemas.latest(f"{usual[table]}-value")
        return mapping.columns.get(table, {}) if schema is None else compile_decoder(schema).columns

    writer = CopyWriter(settings.shop, mapping, Catalogue(settings.shop, reads), RegistryDecoders(schemas), columns)
    return Stager(writer, usual, index_topic(settings.topic_prefix))


def looks(settings: SinkSettings) -> dict[str, Callable[[], object]]:
    """The parts that `sink check` looks at."""
    away: list[OrdertapError] = []  # Tryton needs 30 s to say that it has no such database: it is asked once
    found: dict[str, Callable[[], object]] = {
        "profile": lambda: profile(settings),
        "middle layer": lambda: check.middle_layer(made_middle(settings), settings.shop),
        "ERP": lambda: check.erp_answers(erp(settings), away),
        "ERP's master data": lambda: _look_at_master_data(settings, away),
        "registry": lambda: registry(settings).check(),
        "broker and topics": lambda: _look_at_topics(settings),
    }
    url = settings.shop_url
    if url is not None:
        found["shop"] = lambda: check.shop_is_readable(_shop(url), profile(settings))
    return found


def _look_at_master_data(settings: SinkSettings, away: list[OrdertapError]) -> check.MasterDataFound:
    if away:
        raise away[0]
    found, made = _sells(settings), SETUPS.get(settings.erp.kind)
    return check.master_data(erp(settings), made(settings.erp, found, None) if made else None, found)


def _look_at_topics(settings: SinkSettings) -> None:
    wanted = topics(settings)
    check.topics_exist(
        GroupOffsets(_kafka(settings), settings.group, wanted), wanted, index_topic(settings.topic_prefix)
    )


def reconciled(settings: SinkSettings, say: Say) -> Report:
    """Compares shop and ERP. `say` gets the progress."""
    with ExitStack() as open_:
        ours, theirs = open_.enter_context(closing(middle(settings))), open_.enter_context(closing(erp(settings)))
        source = shop(settings)
        if source is not None:
            open_.enter_context(closing(source))
        collective, prices = settings.customers == "collective", settings.prices_owner == "shop"
        return reconcile(ours, source, settings.shop, profile(settings), theirs, collective, prices, say=say)


def _kafka(settings: SinkSettings) -> dict[str, str]:
    options = {name: secret.get_secret_value() for name, secret in settings.kafka.items()}
    return {"bootstrap.servers": settings.bootstrap_servers, **options}
