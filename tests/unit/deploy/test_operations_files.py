"""Files for other programs: Kubernetes manifests, Prometheus rules, a Grafana dashboard."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prometheus_client import REGISTRY

import capture.metrics
import sink.metrics
from capture.settings import Settings as CaptureSettings
from sink.settings import SinkSettings

DEPLOY = Path(__file__).parents[3] / "deploy"
MANIFESTS = sorted(path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.name != "kustomization.yaml")
ALERTS = DEPLOY / "dashboards" / "alerts.yaml"
DASHBOARD = DEPLOY / "dashboards" / "grafana.json"
PROMTOOL = shutil.which("promtool")
KUBERNETES = "1.31"


def documents(path: Path) -> Iterator[dict[str, Any]]:
    yield from yaml.safe_load_all(path.read_text("utf-8"))


def exported() -> set[str]:
    """Names of all series that capture and sink export."""
    assert capture.metrics
    assert sink.metrics
    names: set[str] = set()
    for metric in REGISTRY.collect():
        if metric.name.startswith("ordertap_"):
            names |= {sample.name for sample in metric.samples}
            suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(metric.type, [""])
            names |= {metric.name + suffix for suffix in suffixes}  # one with labels has no sample before its first use
    return names


def alerts() -> dict[str, str]:
    """Alert → expression."""
    groups = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def expressions() -> list[str]:
    panels = [one["expr"] for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"] for one in panel["targets"]]
    return [*alerts().values(), *panels]


@pytest.mark.parametrize(
    ("part", "until"), [("capture", "and with `ordertap_sink_`"), ("sink", "`capture status --json` and")]
)
def test_the_page_names_the_metrics_that_there_are(part: str, until: str) -> None:
    page = (DEPLOY / "README.md").read_text("utf-8")
    table = page.partition(f"with `ordertap_{part}_`")[2].partition(until)[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ") and "`" in line]
    named = {f"ordertap_{part}_{name}" for cell in cells for name in re.findall(r"`(\w+)[{`]", cell)}
    ours = {name for name in exported() if name.startswith(f"ordertap_{part}_")}
    made = ("_bucket", "_sum", "_count", "_created")  # of a histogram, and by the library
    assert named - {name.removesuffix("_bucket") for name in ours} == set()
    assert {name.removesuffix("_bucket") for name in ours if not name.endswith(made[1:])} - named == set()


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_what_kubernetes_knows(path: Path) -> None:
    for document in documents(path):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_the_kustomization_names_every_manifest() -> None:
    kustomization = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text("utf-8"))
    assert sorted(kustomization["resources"]) == [path.name for path in MANIFESTS]


def test_manifests_set_what_the_programs_know() -> None:
    known = {f"ORDERTAP_CAPTURE_{name.upper()}" for name in CaptureSettings.model_fields}
    known |= {f"ORDERTAP_SINK_{name.upper()}" for name in SinkSettings.model_fields} | {"ORDERTAP_SINK_ERP__URL"}
    text = "".join(path.read_text("utf-8") for path in MANIFESTS)
    names = set(re.findall(r"ORDERTAP_\w+", text))
    assert len(names) > 5
    assert {name.removesuffix("_FILE") for name in names} <= known


def test_every_secret_is_told_how_to_make() -> None:
    used = re.findall(r"value: /run/secrets/ordertap/(\w+)", "".join(path.read_text("utf-8") for path in MANIFESTS))
    told = re.findall(r"--from-file=(\w+)", (DEPLOY / "kubernetes" / "kustomization.yaml").read_text("utf-8"))
    assert {*used} == {*told} != set()


def test_rules_and_dashboard_name_what_is_exported() -> None:
    named = {name for expression in expressions() for name in re.findall(r"ordertap_\w+", expression)}
    assert len(named) > 15
    assert named - exported() == set()


def test_every_gauge_that_a_person_should_be_told_of_has_a_rule() -> None:
    """deploy/README.md prints their names in bold."""
    page = (DEPLOY / "README.md").read_text("utf-8")
    bold = re.findall(r"\*\*`(\w+)(?:\{\w+\})?`\*\*", page)
    rules = ALERTS.read_text("utf-8")
    assert len(bold) > 5
    assert [name for name in bold if not re.search(rf"ordertap_(capture|sink)_{name}\b", rules)] == []


def test_the_runbook_answers_each_alert_by_its_name() -> None:
    page = (DEPLOY / "README.md").read_text("utf-8")
    rows = [line.split("|")[1] for line in page.partition("## Runbook")[2].splitlines() if line.startswith("| ")]
    named = [name for row in rows for name in re.findall(r"`(Ordertap\w+)`", row)]
    assert sorted(named) == sorted(alerts()) != []


def test_alerts_keep_shops_apart() -> None:
    """A healthy shop must not hide another one's outage: no value is made of two shops'."""
    made = [found for one in alerts().values() for found in re.findall(r"\b(?:sum|max|min|count|avg)\b[^)]*\)?", one)]
    assert len(made) > 5
    assert [one for one in made if " by (job, namespace" not in one] == []


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed here: the rules' syntax was NOT checked")
def test_promtool_accepts_the_rules_and_what_the_dashboard_asks(tmp_path: Path) -> None:
    asked = [one.replace("$__rate_interval", "1m") for one in expressions()]
    rules = [{"record": f"asked:{number}", "expr": one} for number, one in enumerate(asked)]
    dashboard = tmp_path / "dashboard.yaml"
    dashboard.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert PROMTOOL
    ended = subprocess.run([PROMTOOL, "check", "rules", ALERTS, dashboard], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{len(rules)} rules found" in ended.stdout
