"""Databases in every encoding of PostgreSQL: names and values arrive in UTF-8, by stream and snapshot, or capture says
why it cannot read."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from capture.commands.findings import Finding
from capture.commands.preflight import encoding_findings
from capture.postgres import pgoutput
from capture.postgres.replication import Replication, Server
from deploy.embedded import Postgres
from schemas.model.errors import SettingsError
from schemas.model.lsn import LSN
from schemas.model.relation import Relation

TEXTS = {
    "EUC_CN": "中文", "EUC_JP": "日本語", "EUC_JIS_2004": "日本語", "EUC_KR": "한국어", "EUC_TW": "中文",
    "ISO_8859_5": "Привет", "ISO_8859_6": "مرحبا", "ISO_8859_7": "Καλημέρα", "ISO_8859_8": "שלום",
    "KOI8R": "Привет", "KOI8U": "Привіт", "LATIN1": "Käse", "LATIN2": "łódź", "LATIN3": "ĥoro", "LATIN4": "ķēde",
    "LATIN5": "ağaç", "LATIN6": "ŋáŋ", "LATIN7": "ąžuolas", "LATIN8": "ŵy", "LATIN9": "5 €", "LATIN10": "șapte",
    "UTF8": "Käse 日本 😀", "WIN866": "Привет", "WIN874": "สวัสดี", "WIN1250": "łódź", "WIN1251": "Привет",
    "WIN1252": "5 €", "WIN1253": "Καλημέρα", "WIN1254": "ağaç", "WIN1255": "שלום", "WIN1256": "مرحبا",
    "WIN1257": "ąžuolas", "WIN1258": "đơn", "SQL_ASCII": "plain",
}  # fmt: skip
"""Text that each encoding can hold. Source: PostgreSQL manual, "Character Set Support"."""
_number = count()


def make(postgres: Postgres, encoding: str) -> Server:
    """A database in this encoding, with a publication of all tables and a slot."""
    name = f"encoding_{next(_number)}"
    postgres.psql(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    return Server("127.0.0.1", postgres.port, "postgres", "", name, "disable")


@pytest.fixture
def slot(postgres: Postgres) -> Iterator[str]:
    """The name of a slot, which is dropped at the end."""
    name = f"encoding_{next(_number)}"
    yield name
    postgres.psql(
        f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{name}'", "postgres"
    )


def streamed(server: Server, slot: str) -> tuple[Relation, pgoutput.Insert]:
    """The table and the row that the log has."""
    replication = Replication(server)
    try:
        replication.start(slot, LSN(0), "everything")
        found: dict[type, Any] = {}
        while pgoutput.Commit not in found:
            message = replication.read()
            if message is None:
                time.sleep(0.01)
                continue
            decoded = pgoutput.decode(message.payload)
            found[type(decoded)] = decoded
    finally:
        replication.close()
    return found[Relation], found[pgoutput.Insert]


@pytest.mark.parametrize("encoding", TEXTS)
def test_names_and_values_come_in_utf_8(postgres: Postgres, slot: str, encoding: str) -> None:
    text = TEXTS[encoding]
    server = make(postgres, encoding)
    connection = server.connect()
    copied = io.BytesIO()
    with connection.cursor() as cursor:
        cursor.execute(f'CREATE TABLE "{text}" (id int PRIMARY KEY, "c {text}" text)')
        cursor.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        cursor.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
        cursor.execute(f'INSERT INTO "{text}" VALUES (1, %s)', [text])
        cursor.copy_expert(f'COPY "{text}" ("c {text}") TO STDOUT', copied)
    relation, insert = streamed(server, slot)
    assert (relation.name, relation.columns[1].name) == (text, f"c {text}")
    assert insert.new == (b"1", text.encode())
    assert copied.getvalue() == text.encode() + b"\n"
    findings = list(encoding_findings(connection))
    connection.close()
    assert [finding.level for finding in findings] == ["warn" if encoding == "SQL_ASCII" else "ok"]


def test_bytes_of_no_known_encoding_are_warned_of(postgres: Postgres) -> None:
    connection = make(postgres, "SQL_ASCII").connect()
    (finding,) = encoding_findings(connection)
    connection.close()
    assert isinstance(finding, Finding)
    assert "SQL_ASCII" in finding.what
    assert "UTF-8" in finding.remedy


def test_an_encoding_that_the_server_cannot_convert_is_said_with_its_name(postgres: Postgres) -> None:
    server = make(postgres, "MULE_INTERNAL")
    with pytest.raises(SettingsError) as failure:
        server.connect()
    assert "MULE_INTERNAL" in failure.value.message
    assert "UTF-8" in (failure.value.hint or "")
