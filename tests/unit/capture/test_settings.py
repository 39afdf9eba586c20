"""The settings that shape records, and what the position remembers of them."""

from typing import Any

import pytest
from pydantic import ValidationError

from capture.settings import Settings
from schemas.type_modes import Modes

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
    ("unavailable_value_placeholder", "hex:6f6666"),
]


def test_every_mode_is_a_setting() -> None:
    assert {name for name, _ in MODES} == set(Modes._fields)
    assert Settings(**MINIMAL).modes == Modes()


@pytest.mark.parametrize(("name", "value"), MODES)
def test_a_mode_shapes_records(name: str, value: Any) -> None:
    settings = Settings(**MINIMAL, **{name: value})
    assert settings.modes == Modes(**{name: value})
    assert settings.record_hash() != Settings(**MINIMAL).record_hash()


def test_a_position_from_before_the_modes_is_known_again() -> None:
    assert Settings(**MINIMAL).record_hash() == "16ff0993868fe1ed"


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
