"""Who may import whom, walked from the source: the parts meet only in Kafka, and pure files stay pure."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = frozenset({"capture", "sink", "schemas", "deploy", "tests"})
ALLOWED = {"schemas": {"schemas"}, "capture": {"capture", "schemas"}, "sink": {"sink", "schemas"}}

# A dependency that touches the world, and the files that may import it. Every other file is pure.
POSTGRES = {
    "capture": {
        "postgres.replication", "snapshot.locks", "snapshot.chunks", "on_demand.signals", "on_demand.chunk_reader",
    },
    "sink": {
        "database", "intake.evidence", "documents.build", "ledger.blocked", "ledger.documents", "ledger.marks",
        "staging.inbox", "staging.parked", "staging.row_writer", "staging.snapshots", "staging.tables",
        "staging.touches",
    },
}  # fmt: skip
KAFKA = {
    "capture": {"kafka.broker", "kafka.cluster", "kafka.errors", "kafka.hanging", "kafka.producer"},
    "sink": {"intake.consumer", "intake.offsets"},
    "schemas": {"registry_http"},
}
SQLALCHEMY = {"sink": {"erp.sql.adapter", "erp.sql.connections", "erp.sql.reads", "erp.sql.writes"}}
CLOCK = {
    "capture": {
        "__main__", "changes.heartbeats", "changes.stream", "commands.preflight", "commands.status",
        "kafka.cluster", "kafka.producer", "kafka.writer", "metrics", "on_demand.incremental",
        "on_demand.chunk_reader", "pipeline", "session",
        "snapshot.copying", "snapshot.initial", "snapshot.progress", "snapshot.workers",
    },
    "sink": {"apply.circuit", "commands.reconcile", "pipeline", "erp.sql.adapter"},
}  # fmt: skip
MAY_IMPORT = {"psycopg2": POSTGRES, "confluent_kafka": KAFKA, "sqlalchemy": SQLALCHEMY, "time": CLOCK}
READS_ENVIRONMENT = {"schemas": {"settings"}}
READS_SETTINGS = {"capture": {"__main__", "plan"}, "sink": {"__main__", "wiring"}}


def source_files(package: str) -> Iterator[tuple[str, ast.Module]]:
    """(dotted name inside the package, parsed) of each source file."""
    for path in sorted((ROOT / package).rglob("*.py")):
        yield ".".join(path.relative_to(ROOT / package).with_suffix("").parts), ast.parse(path.read_text("utf-8"))


def imported(tree: ast.Module) -> Iterator[str]:
    """The modules that a file imports, anywhere in it, with full names; relative imports are refused by the linter."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def wrong_packages(package: str, trees: Iterator[tuple[str, ast.Module]]) -> list[str]:
    """Imports of ours that the package may not have."""
    return [
        f"{package}.{name} imports {module}"
        for name, tree in trees
        for module in imported(tree)
        if module.startswith(".") or (module.split(".")[0] in OURS - ALLOWED[package])
    ]


def wrong_dependencies(package: str, trees: Iterator[tuple[str, ast.Module]]) -> list[str]:
    """Imports of a dependency outside the files that are there for it."""
    return [
        f"{package}.{name} imports {module}"
        for name, tree in trees
        for module in imported(tree)
        if name not in MAY_IMPORT.get(module.split(".")[0], {}).get(package, {name})
        or (module.split(".")[0] in MAY_IMPORT and package not in MAY_IMPORT[module.split(".")[0]])
    ]


def environment_readers(package: str) -> list[str]:
    """Files that look at the process's environment."""
    return [
        name
        for name, tree in source_files(package)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in {"environ", "getenv"}
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    ]


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_packages_import_only_what_is_below_them(package: str) -> None:
    assert wrong_packages(package, source_files(package)) == []


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_each_dependency_stays_in_its_files(package: str) -> None:
    assert wrong_dependencies(package, source_files(package)) == []


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_only_the_settings_loader_reads_the_environment(package: str) -> None:
    assert set(environment_readers(package)) <= READS_ENVIRONMENT.get(package, set())


@pytest.mark.parametrize("package", ["capture", "sink"])
def test_settings_are_read_where_plain_values_are_made_of_them(package: str) -> None:
    readers = {name for name, tree in source_files(package) if f"{package}.settings" in set(imported(tree))}
    assert readers <= READS_SETTINGS.get(package, set())


def test_no_file_imports_the_entry_point() -> None:
    every = [module for package in ALLOWED for _, tree in source_files(package) for module in imported(tree)]
    assert [module for module in every if module.endswith("__main__")] == []


@pytest.mark.parametrize(
    ("package", "source"),
    [("capture", "import sink.ledger"), ("schemas", "from capture import x"), ("sink", "from . import ledger")],
)
def test_a_wrong_direction_is_found(package: str, source: str) -> None:
    assert wrong_packages(package, iter([("made_up", ast.parse(source))]))


@pytest.mark.parametrize(
    ("package", "source"),
    [("sink", "import psycopg2"), ("schemas", "def f():\n    import psycopg2"), ("capture", "import sqlalchemy.orm")],
)
def test_a_dependency_in_a_pure_file_is_found(package: str, source: str) -> None:
    assert wrong_dependencies(package, iter([("made_up", ast.parse(source))]))


@pytest.mark.parametrize("package", ["capture", "sink"])
def test_the_readme_says_what_each_folder_is_for(package: str) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    folders = [path.parent.name for path in (ROOT / package).glob("*/__init__.py")]
    assert len(folders) > 3
    assert [name for name in folders if f"| `{name}/` |" not in readme] == []
