"""Where Avro schemas get their ids: a schema registry over HTTP, or a folder (`file://`) for embedded use.

Both keep what they learnt, so that nothing is looked up per record.
"""

from __future__ import annotations

import fcntl
import json
import os
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from confluent_kafka.schema_registry import Schema as RegisteredSchema
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from schemas.envelope import Schema
from schemas.errors import DataError, SettingsError, UnavailableError

# The HTTP library that confluent-kafka's client chooses: httpx2 where it is there.
_TransportError: type[Exception] = import_module("httpx2" if find_spec("httpx2") else "httpx").HTTPError

_NEXT_STEP = "check schema_registry_url and that the registry answers there, then start again"
# The caller tries again by its own rule, and must not be kept from PostgreSQL's keepalives for long.
_PATIENCE = {"timeout": 10, "max.retries": 1}
_NUMBERS = ("timeout", "max.retries", "retries.wait.ms", "retries.max.wait.ms")
_NOT_FOUND = (40402, 40403)
_INCOMPATIBLE = 409
_REFUSED = (401, 403)
_INVALID = 422


class IncompatibleError(SettingsError):
    """The registry does not accept a schema under its subject's compatibility rule."""

    def __init__(self, subject: str, reason: str) -> None:
        hint = "loosen the subject's compatibility (BACKWARD is usual), or give the change a default in the shop"
        super().__init__(f"subject {subject}: the registry refuses the new schema: {reason}", hint)
        self.subject = subject
        self.reason = reason


class Registry(Protocol):
    """Ids of schemas. Ids are global: one schema has one id under all subjects, for good.

    Raises UnavailableError when it does not answer, SettingsError when it refuses the log-in, IncompatibleError when it
    refuses a schema, DataError for an id that it does not know.
    """

    def register(self, subject: str, schema: Schema) -> int:
        """The id of the schema, registered under the subject if it is not yet."""
        ...

    def schema(self, schema_id: int) -> Schema:
        """The schema of an id."""
        ...

    def latest(self, subject: str) -> Schema | None:
        """The newest schema of a subject, None when it has none yet; asked anew each time."""
        ...

    def check(self) -> None:
        """Raises as above unless the registry answers."""
        ...

    def try_out(self, subject: str, schema: Schema) -> None:
        """Raises IncompatibleError if registering the schema would; registers nothing."""
        ...

    def close(self) -> None:
        """Ends its connections; it is not asked any more."""
        ...


def open_registry(url: str, options: Mapping[str, str] | None = None) -> Registry:
    """A registry by its URL.

    `options` are those of confluent-kafka's SchemaRegistryClient: `basic.auth.user.info`, `ssl.ca.location`…
    SettingsError for a URL or option that is none.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.path and parts.netloc in ("", "localhost"):
        return FolderRegistry(Path(unquote(parts.path)))
    if parts.scheme in ("http", "https") and parts.netloc:
        return HttpRegistry(url, options or {})
    raise SettingsError(
        f"schema_registry_url: {parts.scheme or 'no scheme'} is not a registry",
        "write http://host:8081, https://… or file:///absolute/folder",
    )


def canonical(schema: Schema) -> str:
    """The text under which equal schemas are equal: no blanks, the order of properties kept."""
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))


class FolderRegistry:
    """A folder with `<id>.json` for each schema and `subjects/<subject>` listing ids, shared by processes.

    Writers take a lock on the folder; a file appears whole (written aside, then linked), so readers need no lock.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ids: dict[tuple[str, str], int] = {}
        self._schemas: dict[int, Schema] = {}
        try:
            (folder / "subjects").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from None

    def register(self, subject: str, schema: Schema) -> int:
        """As Registry says; every schema is compatible here."""
        text = canonical(schema)
        known = self._ids.get((subject, text))
        if known is None:
            try:
                with self._lock():
                    known = self._find(text) or self._add(text)
                    self._list_under(subject, known)
            except OSError as error:
                raise self._unusable(error) from None
            self._ids[subject, text] = known
        return known

    def schema(self, schema_id: int) -> Schema:
        """As Registry says."""
        if schema_id not in self._schemas:
            path = self._folder / f"{schema_id}.json"
            try:
                self._schemas[schema_id] = json.loads(path.read_text("utf-8"))
            except FileNotFoundError:
                raise _unknown_id(schema_id, self._folder.as_uri()) from None
            except OSError as error:
                raise self._unusable(error) from None
            except ValueError:
                raise DataError(f"{path} is not JSON") from None
        return self._schemas[schema_id]

    def latest(self, subject: str) -> Schema | None:
        """As Registry says."""
        try:
            listed = (self._folder / "subjects" / subject.replace("/", "%2F")).read_text("utf-8").split()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error) from None
        return self.schema(int(listed[-1])) if listed else None

    def check(self) -> None:
        """As Registry says: the folder can be written."""
        if not os.access(self._folder / "subjects", os.W_OK):
            raise self._unusable(PermissionError("not writable"))

    def try_out(self, subject: str, schema: Schema) -> None:
        """As Registry says: every schema is compatible here."""

    def close(self) -> None:
        """As Registry says: nothing is open between calls."""

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _find(self, text: str) -> int | None:
        for path in self._folder.glob("*.json"):
            if path.read_text("utf-8") == text:
                return int(path.stem)
        return None

    def _add(self, text: str) -> int:
        schema_id = max((int(path.stem) for path in self._folder.glob("*.json")), default=0) + 1
        self._write(self._folder / f"{schema_id}.json", text)
        return schema_id

    def _list_under(self, subject: str, schema_id: int) -> None:
        path = self._folder / "subjects" / subject.replace("/", "%2F")
        listed = path.read_text("utf-8").split() if path.exists() else []
        if str(schema_id) not in listed:
            self._write(path, "\n".join([*listed, str(schema_id)]) + "\n")

    def _write(self, path: Path, text: str) -> None:
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        # Records that name this id outlive a power cut, so its name must, too.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _unusable(self, error: OSError) -> UnavailableError:
        reason = error.strerror or str(error)
        return UnavailableError(f"schema registry folder {self._folder}: {reason}", "make it writable for this user")


class HttpRegistry:
    """A registry that speaks Confluent's API, through confluent-kafka's client (Confluent, Apicurio, Karapace)."""

    def __init__(self, url: str, options: Mapping[str, str]) -> None:
        self._url = url
        self._ids: dict[tuple[str, str], int] = {}
        self._schemas: dict[int, Schema] = {}
        try:
            numbers = {name: float(options[name]) for name in _NUMBERS if name in options}
            self._client = SchemaRegistryClient({"url": url, **_PATIENCE, **options, **numbers})
        except (TypeError, ValueError) as error:
            raise SettingsError(f"schema_registry: {error}", "see confluent-kafka's SchemaRegistryClient") from None
        # Its pooled connections end with this object at the latest.
        self._end = weakref.finalize(self, self._client.__exit__, None, None, None)

    def register(self, subject: str, schema: Schema) -> int:
        """As Registry says."""
        text = canonical(schema)
        known = self._ids.get((subject, text))
        if known is None:
            with self._answering(subject):
                known = int(self._client.register_schema(subject, RegisteredSchema(text, "AVRO")))
            self._ids[subject, text] = known
        return known

    def schema(self, schema_id: int) -> Schema:
        """As Registry says."""
        if schema_id not in self._schemas:
            with self._answering(None, schema_id):
                found = self._client.get_schema(schema_id)
            try:
                self._schemas[schema_id] = json.loads(found.schema_str or "")
            except (TypeError, ValueError):
                raise DataError(f"schema {schema_id} of {self._url} is not Avro") from None
        return self._schemas[schema_id]

    def latest(self, subject: str) -> Schema | None:
        """As Registry says."""
        with self._answering(subject):
            try:
                schema_id = self._client.get_latest_version(subject).schema_id
            except SchemaRegistryError as error:
                if error.http_status_code == 404:
                    return None
                raise
        return None if schema_id is None else self.schema(schema_id)

    def check(self) -> None:
        """As Registry says."""
        with self._answering(None):
            self._client.get_subjects()

    def try_out(self, subject: str, schema: Schema) -> None:
        """As Registry says; the registry is asked under the subject's own compatibility rule."""
        with self._answering(subject):
            try:
                compatible = self._client.test_compatibility(subject, RegisteredSchema(canonical(schema), "AVRO"))
            except SchemaRegistryError as error:
                if error.http_status_code == 404:  # the subject is new
                    return
                raise
        if not compatible:
            raise IncompatibleError(subject, "not compatible with the newest version")

    def close(self) -> None:
        """As Registry says."""
        self._end()

    @contextmanager
    def _answering(self, subject: str | None, schema_id: int | None = None) -> Iterator[None]:
        try:
            yield
        except SchemaRegistryError as error:
            raise self._refusal(error, subject, schema_id) from None
        except (_TransportError, OSError) as error:
            reason = type(error).__name__
            raise UnavailableError(f"schema registry {self._url} does not answer: {reason}", _NEXT_STEP) from None

    def _refusal(self, error: SchemaRegistryError, subject: str | None, schema_id: int | None) -> Exception:
        status = error.http_status_code
        if subject is not None and status in (_INCOMPATIBLE, _INVALID):
            return IncompatibleError(subject, str(error.error_message))
        if schema_id is not None and (status == 404 or error.error_code in _NOT_FOUND):
            return _unknown_id(schema_id, self._url)
        if status in _REFUSED:
            return SettingsError(
                f"schema registry {self._url} refuses us: HTTP {status}", "check its user and password"
            )
        return UnavailableError(f"schema registry {self._url}: {error.error_message} (HTTP {status})", _NEXT_STEP)


def _unknown_id(schema_id: int, url: str) -> DataError:
    return DataError(f"schema {schema_id} is not in the registry {url}", "check that it is the one capture wrote to")
