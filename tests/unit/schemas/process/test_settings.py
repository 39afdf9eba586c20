"""Settings: where they come from, which one wins, and what is said when they are wrong."""

from pathlib import Path

import pytest
from pydantic import BaseModel, Field, SecretStr

from schemas.model.errors import ExitCode, SettingsError
from schemas.process.settings import load


class Erp(BaseModel):
    kind: str = "sql"
    url: SecretStr = SecretStr("")


class Example(BaseModel):
    name: str
    database_port: int = Field(default=5432, gt=0)
    database_password: SecretStr = SecretStr("")
    table_include_list: list[str] = []
    kafka: dict[str, str] = {}
    linger_ms: float = 5
    erp: Erp = Erp()
    other: Erp | None = None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("capture:\n  name: shop\n  database_port: 5433\nsink:\n  anything: 1\n")
    return path


def failure(section: str, path: Path | None, environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load("sink" if section == "sink" else "capture", Example, path, environ)
    assert caught.value.exit_code == ExitCode.CONFIG
    return str(caught.value)


def test_the_part_of_the_file_is_the_settings(file: Path) -> None:
    settings = load("capture", Example, file, {})
    assert (settings.name, settings.database_port, settings.linger_ms) == ("shop", 5433, 5)


def test_the_environment_wins_over_the_file(file: Path) -> None:
    settings = load("capture", Example, file, {"ORDERTAP_CAPTURE_NAME": "b", "ORDERTAP_CAPTURE_LINGER_MS": "1.5"})
    assert (settings.name, settings.database_port, settings.linger_ms) == ("b", 5433, 1.5)


def test_the_environment_alone_is_enough() -> None:
    environ = {
        "ORDERTAP_SINK_NAME": "s",
        "ORDERTAP_SINK_ERP__KIND": "odoo",
        "ORDERTAP_SINK_OTHER__KIND": "tryton",
        "ORDERTAP_SINK_TABLE_INCLUDE_LIST": "public.a, public.b",
        "ORDERTAP_SINK_KAFKA": "{security.protocol: SSL}",
        "ORDERTAP_CAPTURE_ANYTHING": "of the other process",
        "HOME": "/",
        "ORDERTAP_CACHE": "/",
        "ORDERTAP_PURE_PYTHON": "1",
    }
    settings = load("sink", Example, None, environ)
    assert settings.erp.kind == "odoo"
    assert settings.other is not None
    assert settings.other.kind == "tryton"
    assert settings.table_include_list == ["public.a", "public.b"]
    assert settings.kafka == {"security.protocol": "SSL"}


def test_a_list_in_yaml_form_from_the_environment() -> None:
    environ = {"ORDERTAP_SINK_NAME": "s", "ORDERTAP_SINK_TABLE_INCLUDE_LIST": "[public.a]"}
    assert load("sink", Example, None, environ).table_include_list == ["public.a"]


def test_a_key_given_twice_is_refused_with_its_lines(file: Path) -> None:
    file.write_text(
        "capture:\n  name: a\n  kafka:\n    a.b: 1\n    a.b: 2\n  list: [{x: 1,\n x: 2}]\n  name: b\n"
        "sink:\n  mode: 1\n  mode: 2\n"
    )
    said = failure("capture", file, {})
    assert "  - name: given twice, in lines 2 and 8\n" in said
    assert "  - kafka.a.b: given twice, in lines 4 and 5\n" in said
    assert "  - list.0.x: given twice, in lines 6 and 7\n" in said
    assert "mode" not in said  # the other process says that
    file.write_text("capture:\n  name: a\ncapture:\n  name: b\n")
    assert "  - capture: given twice, in lines 1 and 3\n" in failure("capture", file, {})


def test_a_key_given_twice_in_a_variable_is_refused() -> None:
    environ = {"ORDERTAP_SINK_NAME": "s", "ORDERTAP_SINK_KAFKA": "{a.b: 1, a.b: 2}"}
    assert "ORDERTAP_SINK_KAFKA: a.b is given twice" in failure("sink", None, environ)
    plain = {"ORDERTAP_SINK_NAME": "s", "ORDERTAP_SINK_TABLE_INCLUDE_LIST": "a: b, c: d"}
    assert load("sink", Example, None, plain).table_include_list == ["a: b", "c: d"]


def test_an_alias_and_what_it_is_merged_with_are_not_given_twice(file: Path) -> None:
    file.write_text("capture:\n  erp: &one {kind: a, url: u}\n  other: {<<: *one, kind: b}\n  name: n\n")
    assert load("capture", Example, file, {}).other == Erp(kind="b", url=SecretStr("u"))


def test_a_text_that_looks_like_a_number_stays_text() -> None:
    assert load("sink", Example, None, {"ORDERTAP_SINK_NAME": "007"}).name == "007"


def test_a_secret_comes_from_a_file(tmp_path: Path, file: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("S3CRET\n")
    from_environment = load("capture", Example, file, {"ORDERTAP_CAPTURE_DATABASE_PASSWORD_FILE": str(secret)})
    assert from_environment.database_password.get_secret_value() == "S3CRET"
    file.write_text(f"capture:\n  name: shop\n  erp:\n    url_file: {secret}\n")
    assert load("capture", Example, file, {}).erp.url.get_secret_value() == "S3CRET"


def test_a_secret_of_the_environment_wins_over_a_file_of_the_yaml(file: Path) -> None:
    file.write_text("capture:\n  name: shop\n  database_password_file: /nowhere\n")
    settings = load("capture", Example, file, {"ORDERTAP_CAPTURE_DATABASE_PASSWORD": "new"})
    assert settings.database_password.get_secret_value() == "new"


def test_an_unreadable_secret_is_named(file: Path) -> None:
    text = failure("capture", file, {"ORDERTAP_CAPTURE_DATABASE_PASSWORD_FILE": "/nowhere/at/all"})
    named = "database_password_file (ORDERTAP_CAPTURE_DATABASE_PASSWORD_FILE)"
    assert f"{named}: cannot read the file: No such file or directory" in text


def test_a_secret_given_twice_is_named(file: Path, tmp_path: Path) -> None:
    file.write_text(f"capture:\n  name: s\n  database_password: a\n  database_password_file: {file}\n")
    assert "database_password: given twice" in failure("capture", file, {})


def test_only_secrets_have_a_file_form(file: Path) -> None:
    said = failure("capture", file, {"ORDERTAP_CAPTURE_NAME_FILE": str(file)})
    assert "name_file (ORDERTAP_CAPTURE_NAME_FILE): unknown" in said


def test_all_that_is_wrong_is_said_at_once_with_the_nearest_names(file: Path) -> None:
    file.write_text("capture:\n  nam: shop\n  erp:\n    knd: x\n")
    text = failure("capture", file, {"ORDERTAP_CAPTURE_DATABASE_PRT": "1", "ORDERTAP_CAPTUR_X": "1"})
    assert "nam: unknown; did you mean name?" in text
    assert "erp.knd: unknown; did you mean erp.kind?" in text
    assert "database_prt (ORDERTAP_CAPTURE_DATABASE_PRT): unknown; did you mean database_port?" in text
    assert "ORDERTAP_CAPTUR_X: unknown" in text
    assert str(file) in text


def test_wrong_values_are_listed_by_key_and_not_shown(file: Path) -> None:
    file.write_text("capture:\n  database_port: S3CRET\n  database_password: [S3CRET]\n  kafka: [a]\n")
    text = failure("capture", file, {})
    assert "kafka: input should be a mapping" in text
    assert "name: missing" in text
    assert "database_port: input should be a valid integer" in text
    assert "database_password: input should be" in text
    assert "S3CRET" not in text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("capture: [", "is not YAML, line 1"),
        ("- a\n", "is not a mapping"),
        ("capture: 3\n", "`capture:` is not a mapping"),
        ("captur: {}\n", "captur: unknown; did you mean capture?"),
        ("name: shop\n", "all keys belong under `capture:` or `sink:`, indented"),
    ],
)
def test_a_file_that_is_none(file: Path, content: str, reason: str) -> None:
    file.write_text(content)
    assert reason in failure("capture", file, {})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "No such file or directory" in failure("capture", tmp_path / "none.yaml", {})


def test_an_environment_list_that_is_not_yaml() -> None:
    text = failure("sink", None, {"ORDERTAP_SINK_NAME": "s", "ORDERTAP_SINK_KAFKA": "{a"})
    assert "ORDERTAP_SINK_KAFKA: not a list or mapping in YAML" in text


class WithOptions(BaseModel):
    kafka: dict[str, SecretStr] = {}


def test_each_option_of_a_mapping_of_secrets_may_come_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "kafka"
    secret.write_text("s3cret\n")
    config = tmp_path / "config.yaml"
    config.write_text(f"capture: {{kafka: {{sasl.username: tap, sasl.password_file: {secret}}}}}\n")
    settings = load("capture", WithOptions, config, {})
    assert {name: value.get_secret_value() for name, value in settings.kafka.items()} == {
        "sasl.username": "tap",
        "sasl.password": "s3cret",
    }
    assert "s3cret" not in repr(settings)
    environ = {"ORDERTAP_CAPTURE_KAFKA": f"{{sasl.password_file: {secret}}}"}
    assert load("capture", WithOptions, None, environ).kafka["sasl.password"].get_secret_value() == "s3cret"


def test_a_secret_of_a_mapping_given_twice_or_in_no_file(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("capture: {kafka: {a: x, a_file: /nowhere/a, b_file: /nowhere/b}}\n")
    with pytest.raises(SettingsError) as caught:
        load("capture", WithOptions, config, {})
    assert "kafka.a: given twice" in str(caught.value)
    assert "kafka.b_file: cannot read the file: No such file" in str(caught.value)
