"""Who may import whom, walked from the source: the parts meet only in Kafka, and pure files stay pure.

A list of exceptions that has one too many fails as well: what nobody needs is not allowed.
"""

import ast
import importlib
import inspect
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from schemas.model.errors import OrdertapError

ROOT = Path(__file__).parents[2]
OURS = frozenset({"capture", "sink", "schemas", "deploy", "tests"})
ALLOWED = {"schemas": {"schemas"}, "capture": {"capture", "schemas"}, "sink": {"sink", "schemas"}}

TOP_DOWN = {
    "schemas": ("writing", "reading", "registry", "types", "process", "model"),
    "capture": (
        "__main__", "commands", "pipeline", "session", "plan", "settings",
        "stream", "own_messages", "snapshot", "checks", "changes", "kafka", "postgres",
        "position", "demand", "selection", "debezium", "metrics", "stopping",
    ),
    "sink": (
        "__main__", "commands", "wiring", "pipeline", "settings",
        "operations", "reconcile", "apply", "staging", "planning", "ledger", "documents", "intake", "erp",
        "layer", "database", "metrics", "columns",
    ),
}  # fmt: skip
"""A folder, or a file beside the folders, imports only what stands below it."""

# A dependency that touches the world, and the files or folders that may import it.
POSTGRES = {
    "capture": {
        "postgres.replication", "snapshot.locks", "snapshot.chunks", "snapshot.chunk_reader", "commands.signals",
    },
    "sink": {"database", "layer", "documents.build", "intake.evidence", "ledger", "staging"},
}  # fmt: skip
KAFKA = {
    "capture": {"kafka.broker", "kafka.cluster", "kafka.errors", "kafka.hanging", "kafka.producer"},
    "sink": {"intake.consumer", "intake.offsets"},
    "schemas": {"registry.http"},
}
SQLALCHEMY = {"sink": {"erp.sql"}}
HTTP = {"sink": {"erp.tryton.rpc"}}
CLOCK = {
    "capture": {
        "__main__", "changes.heartbeats", "commands.preflight", "commands.status",
        "kafka.cluster", "kafka.producer", "kafka.writer", "metrics", "own_messages", "pipeline", "session",
        "snapshot.chunk_reader", "snapshot.copying", "snapshot.incremental", "snapshot.initial", "snapshot.progress",
        "snapshot.workers", "stream",
    },
    "sink": {
        "apply.circuit", "apply.sending", "commands.reconcile", "erp.sql.silence", "erp.tryton.catalogue",
        "intake.consumer", "metrics", "pipeline", "reconcile.source",
        "staging.end_offsets", "staging.reading", "staging.sequencer", "staging.stager",
    },
}  # fmt: skip
MAY_IMPORT = {"psycopg2": POSTGRES, "confluent_kafka": KAFKA, "sqlalchemy": SQLALCHEMY, "httpx2": HTTP, "time": CLOCK}
SPEAKS_SQL = POSTGRES["sink"] | SQLALCHEMY["sink"]
SET_BY_OTHERS = {
    "autocommit": "a connection's, which psycopg2 knows no other way for",
    "behind": "a prefix is bytes, and takes no arguments beside them",
    "hint": "an error's, where more is known of its cause",
}
"""Attributes that may be set from outside the object that has them. Any other one changes by a method of its own."""
READS_ENVIRONMENT = {"schemas": {"process.settings"}}
READS_SETTINGS = {"capture": {"__main__", "plan"}, "sink": {"commands.options", "wiring"}}

PURE = frozenset({
    "planning", "reconcile.compare", "reconcile.report", "documents.models", "documents.refs", "documents.totals",
    "documents.records", "ledger.outcomes", "staging.assembly", "staging.batch", "intake.copy_text", "intake.decoder",
    "intake.decoder_code", "intake.jsonb", "erp.kinds", "erp.fields", "erp.contract",
    "documents.refusals", "erp.commands", "erp.money", "erp.tryton.errors", "erp.tryton.batches",
})  # fmt: skip
"""Files and folders of the sink that import each other, `schemas`, and of others only this:"""
PURE_IMPORTS = {
    "__future__", "collections", "dataclasses", "datetime", "decimal", "difflib", "enum", "functools", "json",
    "pydantic", "pydantic_core", "re", "struct", "typing",
}  # fmt: skip

# Two classes may share a name only here: both are named in the words of their subject, or are still to be renamed.
ONE_NAME = {
    "Begin": "pgoutput's message; what a worker of the snapshot is told",
    "Column": "of a relation; of a query in a profile; of a row as it is decoded; of a staged table",
    "Commit": "pgoutput's message; a commit in the index of commits",
    "Field": "of an Avro record; of a row, with how it is decoded",
    "Group": "of topics with settings in common; of rows that one statement writes",
    "Position": "of capture in the log; of the copy in it",
    "Remembered": "what was encoded of a text; what was decoded of a value",
    "Route": "of an outbox's event; of a table's records",
    "Start": "of a capture that takes a slot over; of a partition",
    "Truncate": "pgoutput's message; one that a batch brings",
}

Trees = Iterable[tuple[str, ast.Module]]


def source_files(package: str) -> Iterator[tuple[str, ast.Module]]:
    """(dotted name inside the package, parsed) of each source file."""
    for path in sorted((ROOT / package).rglob("*.py")):
        yield ".".join(path.relative_to(ROOT / package).with_suffix("").parts), ast.parse(path.read_text("utf-8"))


def imported(tree: ast.Module) -> Iterator[str]:
    """What a file imports, anywhere in it, with full names; relative imports are refused by the linter.

    `from sink.ledger import leases` is `sink.ledger.leases`, and `from sink.erp.kinds import Kind` has a name too many.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{name.name}" for name in node.names)


def packages(tree: ast.Module) -> set[str]:
    """The first part of each import."""
    return {module.split(".")[0] for module in imported(tree)}


def within(name: str, places: Iterable[str]) -> bool:
    """Whether a file is one of these, or in one of these folders."""
    return any(name == place or name.startswith(f"{place}.") for place in places)


def wrong_packages(package: str, trees: Trees) -> list[str]:
    """Imports of ours that the package may not have."""
    return [
        f"{package}.{name} imports {module}"
        for name, tree in trees
        for module in imported(tree)
        if module.startswith(".") or (module.split(".")[0] in OURS - ALLOWED[package])
    ]


def wrong_dependencies(package: str, trees: Trees) -> list[str]:
    """Imports of a dependency outside the files that are there for it."""
    return [
        f"{package}.{name} imports {module}"
        for name, tree in trees
        for module in sorted(packages(tree) & MAY_IMPORT.keys())
        if not within(name, MAY_IMPORT[module].get(package, ()))
    ]


def wrong_order(package: str, trees: Trees) -> list[str]:
    """Imports of a package's own that go upwards."""
    rank = {place: number for number, place in enumerate(TOP_DOWN[package])}
    return [
        f"{package}.{name} imports {module}"
        for name, tree in trees
        for module in imported(tree)
        if module.startswith(f"{package}.")
        and (own := name.split(".")[0]) != (other := module.split(".")[1])
        and rank[own] > rank.get(other, -1)
    ]


def impure(trees: Trees) -> list[str]:
    """Imports of pure files that are not, and looks at the clock."""
    return [
        f"sink.{name} has {found}"
        for name, tree in trees
        if within(name, PURE)
        for found in [
            *(m for m in imported(tree) if m.startswith("sink.") and not within(m.removeprefix("sink."), PURE)),
            *(packages(tree) - PURE_IMPORTS - {"sink", "schemas"}),
            *(name for name in attributes(tree) if name in ("now", "today", "utcnow")),
        ]
    ]


def attributes(tree: ast.Module) -> set[str]:
    """The names after a dot, `execute` of `cursor.execute(…)`."""
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def set_from_outside(tree: ast.Module) -> set[str]:
    """The attributes that are set of another object than `self`."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if not (isinstance(node.value, ast.Name) and node.value.id == "self")
    }


def environment_readers(package: str) -> set[str]:
    """Files that look at the process's environment."""
    return {
        name
        for name, tree in source_files(package)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in {"environ", "getenv"}
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    }


def classes_of_one_name() -> dict[str, list[str]]:
    """Names that more than one class has, and where."""
    found: dict[str, list[str]] = defaultdict(list)
    for package in ALLOWED:
        for name, tree in source_files(package):
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    found[node.name].append(f"{package}.{name}")
    return {name: places for name, places in found.items() if len(places) > 1}


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_packages_import_only_what_is_below_them(package: str) -> None:
    assert wrong_packages(package, source_files(package)) == []


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_a_folder_imports_only_what_stands_below_it(package: str) -> None:
    assert wrong_order(package, source_files(package)) == []


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_every_folder_has_its_place(package: str) -> None:
    folders = {name.split(".")[0] for name, _ in source_files(package)} - {"__init__"}
    assert folders == set(TOP_DOWN[package])


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_each_dependency_stays_in_its_files(package: str) -> None:
    assert wrong_dependencies(package, source_files(package)) == []


def test_sql_is_spoken_only_to_a_database() -> None:
    speakers = {name for name, tree in source_files("sink") if "execute" in attributes(tree)}
    assert {name for name in speakers if not within(name, SPEAKS_SQL)} == set()


def test_pure_files_are_pure() -> None:
    assert impure(source_files("sink")) == []


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_only_the_settings_loader_reads_the_environment(package: str) -> None:
    assert environment_readers(package) == READS_ENVIRONMENT.get(package, set())


@pytest.mark.parametrize("package", ["capture", "sink"])
def test_settings_are_read_where_plain_values_are_made_of_them(package: str) -> None:
    readers = {
        name
        for name, tree in source_files(package)
        if any(module.startswith(f"{package}.settings.") for module in imported(tree))
    }
    assert readers == READS_SETTINGS[package]


def test_nobody_sets_what_another_object_has() -> None:
    found = {(name, attribute) for name, tree in source_files("capture") for attribute in set_from_outside(tree)}
    assert {one for one in found if one[1] not in SET_BY_OTHERS} == set()
    assert SET_BY_OTHERS.keys() == {attribute for _, attribute in found}, "nobody needs this exception"


def test_no_file_imports_the_entry_point() -> None:
    every = [module for package in ALLOWED for _, tree in source_files(package) for module in imported(tree)]
    assert [module for module in every if "__main__" in module.split(".")] == []


def test_no_rule_allows_what_nobody_needs() -> None:
    trees = {package: list(source_files(package)) for package in ALLOWED}
    unused = [
        f"{package}.{place}: {module}"
        for module, rule in MAY_IMPORT.items()
        for package, places in rule.items()
        for place in places
        if not any(within(name, [place]) and module in packages(tree) for name, tree in trees[package])
    ]
    unused += [
        f"{package}: {other}"
        for package, others in ALLOWED.items()
        for other in others - {package}
        if not any(other in packages(tree) for _, tree in trees[package])
    ]
    pure = [(name, tree) for name, tree in trees["sink"] if within(name, PURE)]
    unused += [f"pure: {place}" for place in PURE if not any(within(name, [place]) for name, _ in pure)]
    unused += [f"pure: {module}" for module in PURE_IMPORTS if not any(module in packages(tree) for _, tree in pure)]
    assert unused == []


def test_a_place_that_speaks_sql_does() -> None:
    speakers = {name for name, tree in source_files("sink") if "execute" in attributes(tree)}
    assert {place for place in SPEAKS_SQL if not any(within(name, [place]) for name in speakers)} == set()


def test_no_two_classes_have_one_name() -> None:
    assert classes_of_one_name().keys() == ONE_NAME.keys()


def test_every_error_of_the_sink_says_what_is_next() -> None:
    """One family: whoever catches OrdertapError has a message and a hint."""
    strangers = [
        f"{found.__module__}.{name}"
        for file, _ in source_files("sink")
        for name, found in inspect.getmembers(importlib.import_module(f"sink.{file}".removesuffix(".__init__")))
        if inspect.isclass(found) and issubclass(found, BaseException) and found.__module__.startswith("sink.")
        if not issubclass(found, OrdertapError)
    ]
    assert strangers == []


def test_every_error_that_the_sink_raises_has_a_hint() -> None:
    """Errors with a hint of their own for all cases need none. The loader turns a ValueError in settings into one of
    ours."""
    own = {"RetryError", "ConflictError", "SlowDownError", "LeaseLostError", "UnkeptError", "ValueError"}
    own |= {"SessionEndedError", "StaleError"}
    without = [
        f"sink.{name}:{node.lineno}"
        for name, tree in source_files("sink")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Error")
        if node.func.id not in own and len(node.args) + len(node.keywords) < 2
    ]
    assert without == []


@pytest.mark.parametrize(
    ("package", "source"),
    [("capture", "import sink.ledger"), ("schemas", "from capture import x"), ("sink", "from . import ledger")],
)
def test_a_wrong_direction_is_found(package: str, source: str) -> None:
    assert wrong_packages(package, [("made_up", ast.parse(source))])


@pytest.mark.parametrize(
    ("package", "file", "source"),
    [
        ("sink", "ledger.made_up", "from sink.apply import worker"),
        ("sink", "erp.made_up", "def f():\n    from sink.intake.evidence import Gap"),
        ("sink", "staging.made_up", "import sink.pipeline"),
        ("capture", "position", "from capture.snapshot.incremental import Incremental"),
        ("schemas", "types.made_up", "from schemas.writing import codec"),
    ],
)
def test_a_wrong_order_is_found(package: str, file: str, source: str) -> None:
    assert wrong_order(package, [(file, ast.parse(source))])


@pytest.mark.parametrize(
    "source", ["import time", "from sink.database import Cursor", "import sink.ledger.leases", "datetime.now(UTC)"]
)
def test_what_is_not_pure_is_found(source: str) -> None:
    assert impure([("planning.made_up", ast.parse(source))])
    assert not impure([("apply.made_up", ast.parse(source))])


@pytest.mark.parametrize(
    ("package", "source"),
    [("sink", "import psycopg2"), ("schemas", "def f():\n    import psycopg2"), ("capture", "import sqlalchemy.orm")],
)
def test_a_dependency_in_a_pure_file_is_found(package: str, source: str) -> None:
    assert wrong_dependencies(package, [("made_up", ast.parse(source))])


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_the_readme_says_what_each_folder_is_for(package: str) -> None:
    readme = (ROOT / package / "README.md").read_text("utf-8")
    folders = [path.parent.name for path in (ROOT / package).glob("*/__init__.py")]
    assert len(folders) > 3
    assert [name for name in folders if f"| `{name}/` |" not in readme] == []
