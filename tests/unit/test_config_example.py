"""Both processes accept the example file, and it has no key that does not exist."""

import re
from pathlib import Path

import pytest
import yaml

from capture.settings import Settings as CaptureSettings
from schemas.model.errors import SettingsError
from schemas.process.settings import load
from sink.documents.profile import load_profile
from sink.erp.tryton.settings import TrytonSettings
from sink.settings import SinkSettings

EXAMPLE = Path(__file__).parents[2] / "deploy" / "config.example.yaml"


def test_capture_accepts_the_example() -> None:
    settings = load("capture", CaptureSettings, EXAMPLE, environ={})
    assert settings.topic_prefix == "shop"
    assert "public.order_lines" in settings.table_include_list


def test_sink_accepts_the_example_and_sends_nothing_by_it() -> None:
    settings = load("sink", SinkSettings, EXAMPLE, environ={})
    assert settings.mode == "plan"
    assert settings.group == "ordertap-shop"


def test_every_setting_is_explained() -> None:
    capture, sink = EXAMPLE.read_text("utf-8").split("\nsink:\n")
    for model, part in ((CaptureSettings, capture), (SinkSettings, sink)):
        missing = [name for name in model.model_fields if not re.search(rf"\b{name}\b|\b{name}_file\b", part)]
        assert missing == []


def test_every_setting_of_tryton_is_explained_and_accepted() -> None:
    block = EXAMPLE.read_text("utf-8").partition("  # erp: ")[2].partition("\n\n")[0].partition("\n")[2]
    given = yaml.safe_load("\n".join(line.removeprefix("  #   ") for line in block.splitlines()))
    assert given.keys() == {*TrytonSettings.model_fields} - {"password"} | {"password_file"}
    del given["password_file"]
    assert TrytonSettings.model_validate({**given, "password": "x"}).orders.goal == "quotation"
    # A call may last longer than this with the recommended limits, and a late one would meet another worker's.
    page = (EXAMPLE.parents[1] / "sink" / "erp" / "tryton" / "README.md").read_text("utf-8")
    assert f"{given['settles_seconds']} with these limits" in page


def test_capture_sends_what_the_profile_stages() -> None:
    capture = load("capture", CaptureSettings, EXAMPLE, environ={})
    sink = load("sink", SinkSettings, EXAMPLE, environ={})
    assert set(capture.table_include_list) == set(load_profile(sink.profile).tables)
    assert capture.topic_prefix == sink.topic_prefix


def test_a_misspelt_key_of_the_example_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "config.yaml"
    wrong.write_text(EXAMPLE.read_text("utf-8").replace("slot_name", "slot_nam"), "utf-8")
    with pytest.raises(SettingsError, match="slot_name"):
        load("capture", CaptureSettings, wrong, environ={})
