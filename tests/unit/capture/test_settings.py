"""The settings that shape records, and what the position remembers of them."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from capture.position import SHAPES_RECORDS
from capture.settings import Settings
from schemas.model.errors import SettingsError
from schemas.process.settings import load
from schemas.types.type_modes import Modes

MINIMAL: dict[str, Any] = {
    "topic_prefix": "shop",
    "database_dbname": "shop",
    "bootstrap_servers": "localhost",
    "schema_registry_url": "file:///tmp/r",
}
MODES = [
    ("decimal_handling_mode", "string"),
    ("time_precision_mode", "isostring"),
    ("binary_handling_mode", "base64-url-safe"),
    ("interval_handling_mode", "string"),
    ("hstore_handling_mode", "map"),
    ("money_fraction_digits", 4),
    ("special_numbers", "exact"),
    ("unavailable_value_placeholder", "hex:6f6666"),
]
DEFAULTS = Modes(special_numbers="null")


def test_every_mode_is_a_setting() -> None:
    assert {name for name, _ in MODES} == set(Modes._fields)
    assert Settings(**MINIMAL).modes == DEFAULTS
    assert Settings(**MINIMAL, special_numbers=None).modes == DEFAULTS  # as YAML reads null


@pytest.mark.parametrize(("name", "value"), MODES)
def test_a_mode_shapes_records(name: str, value: Any) -> None:
    settings = Settings(**MINIMAL, **{name: value})
    assert settings.modes == DEFAULTS._replace(**{name: value})
    assert settings.record_hash() != Settings(**MINIMAL).record_hash()


def test_a_position_from_before_the_modes_is_known_again() -> None:
    assert Settings(**MINIMAL).record_hash() == "16ff0993868fe1ed"


def test_a_position_from_before_special_numbers_is_known_again() -> None:
    assert Settings(**MINIMAL, decimal_handling_mode="string").record_hash() == "1ec566b6de5ed446"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("time_precision_mode", "adaptive_microseconds"),
        ("money_fraction_digits", -1),
        ("unavailable_value_placeholder", "hex:zz"),
        ("unavailable_value_placeholder", "hex:ff"),
    ],
)
def test_what_is_no_mode_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        Settings(**MINIMAL, **{name: value})


HASH = [{"columns": ["public.customers.iban"], "salt": "pepper"}]
SHAPING: list[tuple[str, Any]] = [
    ("table_exclude_list", ["public.log"]),
    ("column_include_list", ["public.customers.name"]),
    ("column_exclude_list", ["public.customers.name"]),
    ("column_mask_with_length_chars", {"public.customers.name": 10}),
    ("column_truncate_to_length_chars", {"public.customers.name": 10}),
    ("column_mask_hash", HASH),
    ("column_mask_hash", [{**HASH[0], "salt": "salt"}]),
    ("column_mask_hash", [{**HASH[0], "algorithm": "MD5"}]),
    ("message_key_columns", ["public.lines:order_id,number"]),
    ("skipped_operations", ["t"]),
]


def test_each_choice_of_tables_and_columns_shapes_records() -> None:
    hashes = [Settings(**MINIMAL, **{name: value}).record_hash() for name, value in SHAPING]
    assert len({Settings(**MINIMAL).record_hash(), *hashes}) == len(SHAPING) + 1
    assert Settings(**MINIMAL, skipped_operations=["none"]).record_hash() == Settings(**MINIMAL).record_hash()
    assert hashes == [Settings(**MINIMAL, **{name: value}).record_hash() for name, value in SHAPING]


OTHERS: dict[str, Any] = {
    "log_level": "debug",
    "database_sslmode": "disable",
    "snapshot_mode": "always",
    "incompatible_schema": "park",
    "oversized_record": "park",
    "output": "json",
    "publication_name": "erp",
    "table_include_list": ["public.orders"],
    "columns_as_text": ["public.orders.note"],
    "column_propagate_source_type": ["public.orders.note"],
    "message_prefix_include_list": ["shop"],
    "outbox_routing": [{"prefix": "outbox", "topic": "outbox"}],
    "topic_routing": [{"topic_regex": "shop.public.(.*)", "topic_replacement": "crm.$1"}],
    "topic_creation_groups": [{"include": ["shop.*"]}],
    "snapshot_include_collection_list": ["public.orders"],
    "snapshot_select_statement_overrides": {"public.orders": "SELECT 1"},
    "kafka": {"linger.ms": 1},
    "schema_registry": {"timeout": 1},
    **dict(SHAPING),
    **dict(MODES),
}
"""Another value of each setting where one of the same kind would not do."""


BESIDE = {"json_schemas_enable": {"output": "json"}}
"""Settings without which one has no meaning."""


def another(name: str) -> Any:
    default = getattr(Settings(**MINIMAL), name)
    if name in OTHERS:
        return OTHERS[name]
    if isinstance(default, bool):
        return not default
    return default + 1 if isinstance(default, int | float) else "other"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_position_knows_the_settings_that_shape_records_and_no_other(name: str) -> None:
    minimal = MINIMAL | BESIDE.get(name, {})
    one, other = Settings(**minimal), Settings(**{**minimal, name: another(name)})
    assert getattr(one, name) != getattr(other, name)
    assert (one.record_hash() != other.record_hash()) == (name in SHAPES_RECORDS)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"table_include_list": ["a.b"], "table_exclude_list": ["c.d"]}, "only one of them"),
        ({"column_include_list": ["a.b.c"], "column_exclude_list": ["a.b.d"]}, "only one of them"),
        ({"table_include_list": ["orders"]}, "write schema.table"),
        ({"table_include_list": ["public.("]}, "not a regular expression"),
        ({"column_exclude_list": ["orders.note"]}, "write schema.table.column"),
        ({"column_mask_with_length_chars": {"a.b.c": -1}}, "greater than or equal to 0"),
        ({"column_truncate_to_length_chars": {"a.b.c": 0}}, "greater than or equal to 1"),
        ({"column_mask_hash": [{"columns": ["a.b.c"]}]}, "salt"),
        ({"column_mask_hash": [{"columns": ["a.b.c"], "salt": "x", "algorithm": "CRC32"}]}, "algorithm"),
        ({"message_key_columns": ["public.lines"]}, "write schema.table:column"),
        ({"skipped_operations": ["none", "c"]}, "none cannot be combined with others"),
        ({"skipped_operations": ["x"]}, "skipped_operations"),
        ({"kafka": {"bootstrap.servers": "a"}}, "bootstrap.servers: capture sets this itself"),
        ({"kafka": {"transactional.id": "a", "partitioner": "random"}}, "partitioner, transactional.id: capture sets"),
    ],
)
def test_a_choice_that_is_none_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Settings(**MINIMAL, **wrong)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("schema_include_list", r"write table_include_list: \['wanted"),
        ("publication.autocreate.mode", "`capture init` makes the publication"),
        ("signal_enabled_channels", "`capture signal` needs no table"),
        ("snapshot.delay.ms", "start it later"),
        ("query_fetch_size", "the snapshot reads by COPY"),
        ("transaction_buffer_rows", "rows go to Kafka as they are read: take it out"),
        ("sanitize_field_names", "names are always as Avro wants them"),
        ("executor_shutdown_timeout_ms", "stops in about a second"),
        ("snapshot_select_statement_overrides_public_orders", r"overrides: \{public.orders: SELECT"),
        ("snapshot.select.statement.overrides.public.orders", r"overrides: \{public.orders: SELECT"),
        ("topic.prefixes", "did you mean topic_prefix"),
    ],
)
def test_an_option_of_debezium_is_refused_with_what_stands_instead(tmp_path: Path, option: str, said: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"capture": {**MINIMAL, option: "x"}}))
    with pytest.raises(SettingsError, match=said):
        load("capture", Settings, config, environ={})


@pytest.mark.parametrize("name", ["snapshot_select_statement_overrides", "column_mask_with_length_chars", "kafka"])
def test_a_text_in_place_of_a_mapping_is_answered_with_an_example(tmp_path: Path, name: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"capture": {**MINIMAL, name: "public.orders"}}))
    with pytest.raises(SettingsError, match=rf"{name}: input should be a mapping, for example {{\w"):
        load("capture", Settings, config, environ={})


def test_no_setting_is_said_to_be_none() -> None:
    assert not [name for name in Settings.model_fields if name.startswith(tuple(Settings.INSTEAD))]


def test_a_salt_can_be_in_a_file_and_is_shown_nowhere(tmp_path: Path) -> None:
    (tmp_path / "salt").write_text("pepper\n")
    hashed = {"columns": ["public.customers.iban"], "salt_file": str(tmp_path / "salt")}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"capture": {**MINIMAL, "column_mask_hash": [hashed]}}))
    settings = load("capture", Settings, config, environ={})
    assert settings.record_hash() == Settings(**MINIMAL, column_mask_hash=HASH).record_hash()
    assert "pepper" not in repr(settings) + repr(settings.lists)
    config.write_text(config.read_text().replace("salt_file", "slat_file"))
    with pytest.raises(SettingsError, match=r"column_mask_hash.0.slat_file: unknown"):
        load("capture", Settings, config, environ={})


def test_json_needs_no_registry_and_shapes_records() -> None:
    settings = {**MINIMAL, "output": "json"}
    del settings["schema_registry_url"]
    with_schemas = Settings(**settings, json_schemas_enable=True)
    hashes = {each.record_hash() for each in (Settings(**settings), with_schemas, Settings(**MINIMAL))}
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"schema_registry_url": ""}, "schema_registry_url: missing; or set output: json"),
        ({"output": "json", "incompatible_schema": "version"}, "incompatible_schema: version makes no sense"),
        ({"output": "json", "incompatible_schema": "park"}, "incompatible_schema: park makes no sense"),
        ({"output": "xml"}, "output: "),
        ({"json_schemas_enable": True}, "json_schemas_enable: only makes sense with output: json"),
    ],
)
def test_an_output_that_cannot_be_is_refused(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    path = tmp_path / "config.yaml"
    given = {name: value for name, value in {**MINIMAL, **changed}.items() if value}
    path.write_text(yaml.safe_dump({"capture": given}))
    with pytest.raises(SettingsError) as refusal:
        load("capture", Settings, path, environ={})
    assert said in str(refusal.value)
