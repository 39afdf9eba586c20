"""Both registries: ids are stable, nothing is asked twice, and each failure says what to do."""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from schemas.model.errors import DataError, SettingsError, UnavailableError
from schemas.registry.http import HttpRegistry
from schemas.registry.registry import FolderRegistry, IncompatibleError, Registry, open_registry

A = {"type": "record", "name": "A", "fields": [{"name": "ä", "type": "int"}]}
B = {"type": "record", "name": "B", "fields": []}


def test_ids_are_global_stable_and_shared(tmp_path: Path) -> None:
    first = open_registry(tmp_path.as_uri())
    a, b = first.register("t-value", A), first.register("t-value", B)
    assert a != b
    assert first.register("u-value", A) == a
    second = open_registry(tmp_path.as_uri())
    assert second.register("t-value", B) == b
    assert (second.schema(a), second.schema(b)) == (A, B)
    assert (tmp_path / "subjects" / "t-value").read_text().split() == [str(a), str(b)]


def test_what_is_known_is_not_read_again(tmp_path: Path) -> None:
    registry = FolderRegistry(tmp_path)
    a = registry.register("t", A)
    assert registry.schema(a) == A
    (tmp_path / f"{a}.json").unlink()
    assert registry.schema(a) == A
    assert registry.register("t", A) == a


def test_many_in_a_folder_are_durable_at_once_and_the_same_as_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file has its name only when its content is on the disk, and a subject names no schema that is not."""
    done: list[str] = []
    replaced, synced = Path.replace, os.fsync

    def replace(aside: Path, path: Path) -> Path:
        done.append(f"name {path.relative_to(tmp_path)}")
        return replaced(aside, path)

    def sync(file: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{file}').readlink().relative_to(tmp_path)}")
        synced(file)

    registry = open_registry(tmp_path.as_uri())
    registry.register("s-value", A)
    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(os, "fsync", sync)
    many = [("s-value", A), ("s-value", B), ("t-key", A), ("t-value", {"type": "string"}), ("s-value", B)]
    registry.register_all(many)
    of = os.getpid()
    asides = [f"sync .2.json.{of}", f"sync .3.json.{of}"]
    lists = [f"sync subjects/.{name}.{of}" for name in ("s-value", "t-key", "t-value")]
    names = ["name subjects/s-value", "name subjects/t-key", "name subjects/t-value"]
    assert done == [*asides, "name 2.json", "name 3.json", "sync .", *lists, *names, "sync subjects"]
    monkeypatch.undo()
    assert [registry.register(*each) for each in many] == [1, 2, 1, 3, 2]
    other = open_registry(tmp_path.as_uri())
    other.register_all(many)
    assert [other.register(*each) for each in many] == [1, 2, 1, 3, 2]
    assert (tmp_path / "subjects" / "s-value").read_text() == "1\n2\n"


REGISTER_MANY = """
import sys
from schemas.registry.registry import open_registry
registry = open_registry(sys.argv[1])
print([registry.register(f"s{i % 3}", {"type": "record", "name": f"N{i}", "fields": []}) for i in range(30)])
"""


def test_processes_at_once_agree_on_the_ids(tmp_path: Path) -> None:
    command = [sys.executable, "-c", REGISTER_MANY, tmp_path.as_uri()]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0] * 4
    assert len(set(answers)) == 1
    assert sorted(json.loads(answers[0])) == list(range(1, 31))
    assert len(list(tmp_path.glob("*.json"))) == 30
    assert not list(tmp_path.glob(".*")) + list((tmp_path / "subjects").glob(".*"))


def test_an_unknown_id(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="schema 7 is not in the registry file://"):
        FolderRegistry(tmp_path).schema(7)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="schema registry folder"):
        FolderRegistry(tmp_path / "file" / "folder")


@pytest.mark.parametrize("url", ["", "localhost:8081", "file://", "file://other/folder", "ftp://x/", "http:///x"])
def test_what_is_no_address_of_a_registry(url: str) -> None:
    with pytest.raises(SettingsError, match="schema_registry_url"):
        open_registry(url)


class Confluent:
    """The part of Confluent's API that the client uses, in memory; `refuse` is an answer for the next requests."""

    def __init__(self) -> None:
        self.known: list[str] = []
        self.requests: list[str] = []
        self.refuse: tuple[str, dict[str, Any]] | None = None

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, answer = self.refuse or self.answer(environ["PATH_INFO"], body)
        start(status, [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]

    def answer(self, path: str, body: bytes) -> tuple[str, Any]:
        if path.startswith("/schemas/ids/"):
            index = int(path.rpartition("/")[2]) - 1
            if index >= len(self.known):
                return "404 Not Found", {"error_code": 40403, "message": "Schema not found"}
            return "200 OK", {"schema": self.known[index]}
        if path == "/subjects":
            return "200 OK", []
        schema = json.loads(body)["schema"]
        if schema not in self.known:
            self.known.append(schema)
        return "200 OK", {"id": self.known.index(schema) + 1, "version": 1, "subject": "s", "schema": schema}


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def confluent() -> Iterator[tuple[Confluent, str]]:
    api = Confluent()
    server = make_server("127.0.0.1", 0, api, handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield api, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_http_ids_come_from_the_registry_and_are_asked_once(confluent: tuple[Confluent, str]) -> None:
    api, url = confluent
    registry = open_registry(url)
    registry.check()
    a = registry.register("t-value", A)
    assert registry.register("t-value", A) == a
    reader = open_registry(url)
    assert reader.schema(a) == reader.schema(a) == A
    assert len([request for request in api.requests if request != "GET /subjects"]) == 2


@pytest.mark.parametrize(
    ("status", "error", "expected", "text"),
    [
        ("409 Conflict", {"error_code": 409, "message": "total: TYPE_MISMATCH"}, IncompatibleError, "TYPE_MISMATCH"),
        ("422 No", {"error_code": 42201, "message": "Invalid schema"}, IncompatibleError, "Invalid schema"),
        ("401 Unauthorized", {"error_code": 401, "message": "no"}, SettingsError, "refuses us: HTTP 401"),
        ("500 Broken", {"error_code": 50001, "message": "store"}, UnavailableError, "store"),
    ],
)
def test_http_refusals(
    confluent: tuple[Confluent, str], status: str, error: dict[str, Any], expected: type[Exception], text: str
) -> None:
    api, url = confluent
    api.refuse = (status, error)
    with pytest.raises(expected, match=text) as failure:
        open_registry(url).register("shop.public.orders-value", A)
    if expected is IncompatibleError:
        assert "shop.public.orders-value" in str(failure.value)


def test_many_over_http_are_asked_for_once_and_what_is_refused_is_left_to_its_own_question(
    confluent: tuple[Confluent, str],
) -> None:
    api, url = confluent
    registry = open_registry(url)
    many = [(f"s{number}-value", {"type": "fixed", "name": "f", "size": number}) for number in range(1, 30)]
    registry.register_all(many)
    assert len({registry.register(*each) for each in many}) == len(many) == len(api.requests)
    api.refuse = "409 Conflict", {"error_code": 409, "message": "total: TYPE_MISMATCH"}
    registry.register_all([("t-value", A)])
    with pytest.raises(IncompatibleError):
        registry.register("t-value", A)
    api.refuse = "500 Broken", {"error_code": 50001, "message": "store"}
    with pytest.raises(UnavailableError, match="store"):
        registry.register_all([("u-value", A)])


def test_http_unknown_id(confluent: tuple[Confluent, str]) -> None:
    with pytest.raises(DataError, match="schema 99 is not in the registry http"):
        open_registry(confluent[1]).schema(99)


def asks() -> list[Callable[[Registry], object]]:
    return [lambda r: r.check(), lambda r: r.register("s", A), lambda r: r.schema(1)]


@pytest.mark.parametrize("ask", asks(), ids=["check", "register", "schema"])
def test_nobody_answers(ask: Callable[[Registry], object]) -> None:
    with pytest.raises(UnavailableError, match=r"schema registry http://127.0.0.1:9 does not answer") as failure:
        ask(HttpRegistry("http://127.0.0.1:9", {"max.retries": "0"}))
    assert "schema_registry_url" in failure.value.hint


def test_an_option_that_the_client_does_not_know() -> None:
    with pytest.raises(SettingsError, match="schema_registry"):
        HttpRegistry("http://127.0.0.1:9", {"no.such.option": "1"})


@pytest.mark.parametrize(("content", "said"), [(None, "No such file"), ("no certificate", "ssl")])
def test_an_authority_that_is_none(tmp_path: Path, content: str | None, said: str) -> None:
    authority = tmp_path / "ca.pem"
    if content is not None:
        authority.write_text(content)
    with pytest.raises(SettingsError, match=said):
        HttpRegistry("https://127.0.0.1:9", {"ssl.ca.location": str(authority)})


def test_the_latest_schema_of_a_subject_in_a_folder(tmp_path: Path) -> None:
    registry = open_registry((tmp_path / "registry").as_uri())
    assert registry.latest("shop.public.orders-value") is None
    registry.register("shop.public.orders-value", {"type": "string"})
    registry.register("shop.public.orders-value", {"type": "long"})
    assert registry.latest("shop.public.orders-value") == {"type": "long"}


def test_c5_a_folder_is_not_read_again_for_each_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of tables are as many squared, else."""
    read: list[str] = []
    read_text = Path.read_text

    def counted(path: Path, encoding: str) -> str:
        read.append(path.name)
        return read_text(path, encoding)

    first, second = FolderRegistry(tmp_path), FolderRegistry(tmp_path)
    monkeypatch.setattr(Path, "read_text", counted)
    ids = [first.register(f"s{number}", {"type": "fixed", "name": "f", "size": number}) for number in range(1, 30)]
    assert ids == [*range(1, 30)]
    assert second.register("other", {"type": "fixed", "name": "f", "size": 7}) == 7  # sees those of another process
    assert second.register("new", {"type": "string"}) == 30
    assert first.register("new", {"type": "string"}) == 30
    assert max(Counter(name for name in read if name.endswith(".json")).values()) <= 2  # once for each of the two
