"""A real schema registry (its Confluent-compatible API) takes our schemas, and refuses what its rule forbids."""

import json
import urllib.request

import pytest

from schemas.model.relation import Column, ColumnFacts, Relation, TableFacts
from schemas.registry.registry import IncompatibleError, open_registry
from schemas.writing import records
from schemas.writing.codec import compile_codec
from tests.unit.schemas.examples import ORDERS, ORDERS_FACTS, TOPIC


def test_our_schemas_are_taken_and_come_back(registry_url: str) -> None:
    codec = compile_codec(TOPIC, ORDERS, ORDERS_FACTS)
    schemas = [codec.key_schema, codec.value_schema, records.NOTIFICATION_VALUE, records.TRANSACTION_VALUE]
    writer, reader = open_registry(registry_url), open_registry(registry_url)
    for index, schema in enumerate(schemas):
        assert schema is not None
        schema_id = writer.register(f"real.{index}-value", schema)
        assert open_registry(registry_url).register(f"real.{index}-value", schema) == schema_id
        assert reader.schema(schema_id) == schema


def test_defaults_of_every_form_are_taken(registry_url: str) -> None:
    """Avro allows a default only of a union's first branch, and a registry checks it."""
    defaults = {
        1009: "'{a,NULL}'::text[]", 1700: "1.5", 17: "'\\x00ff'::bytea", 600: "point(1, 2)", 1114: "'infinity'",
        701: "'NaN'::double precision", 1186: "'1 day'::interval",
    }  # fmt: skip
    columns = tuple(Column(f"c{oid}", oid) for oid in defaults)
    for not_null in (True, False):
        facts = {f"c{oid}": ColumnFacts(not_null, default) for oid, default in defaults.items()}
        codec = compile_codec("real.d", Relation(1, "public", "d", "d", columns), TableFacts((), facts))
        assert open_registry(registry_url).register(f"real.d{not_null}-value", codec.value_schema)


def test_a_new_column_is_compatible_and_a_changed_type_is_not(registry_url: str) -> None:
    subject = "real.compatibility-value"

    def register(*columns: Column) -> int:
        facts = TableFacts((), {"new": ColumnFacts(not_null=True, default="0")})
        codec = compile_codec("real.t", Relation(1, "public", "t", "d", columns), facts)
        return open_registry(registry_url).register(subject, codec.value_schema)

    first = register(Column("v", 23))
    body = json.dumps({"compatibility": "BACKWARD"}).encode()
    address = f"{registry_url}/config/{subject}"
    kind = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
    request = urllib.request.Request(address, body, kind, method="PUT")  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        assert answer.status == 200
    assert register(Column("v", 23), Column("new", 23)) != first
    with pytest.raises(IncompatibleError, match=subject):
        register(Column("v", 25), Column("new", 23))
