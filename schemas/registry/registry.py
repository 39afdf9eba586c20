"""The source of Avro schema ids: a schema registry over HTTP, or a folder (`file://`) for embedded use.

Both remember what they learnt, so that no record needs a look-up.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from schemas.model.errors import DataError, SettingsError, UnavailableError
from schemas.types.kind import Schema


class IncompatibleError(SettingsError):
    """The registry does not accept a schema under its subject's compatibility rule."""

    def __init__(self, subject: str, reason: str) -> None:
        hint = "loosen the subject's compatibility (BACKWARD is usual), or give the change a default in the shop"
        super().__init__(f"subject {subject}: the registry refuses the new schema: {reason}", hint)
        self.subject = subject
        self.reason = reason


class Registry(Protocol):
    """Ids of schemas. They are global: one schema has one id under all subjects, for good.

    All methods raise UnavailableError if it does not answer, SettingsError if it refuses the log-in, IncompatibleError
    if it refuses a schema, and DataError for an unknown id.
    """

    def register(self, subject: str, schema: Schema) -> int:
        """Id of the schema, registered under the subject if it is not yet."""
        ...

    def register_all(self, schemas: Sequence[tuple[str, Schema]]) -> None:
        """Registers many (subject, schema) together, which takes less time than one by one. What is refused is left to
        register()."""
        ...

    def schema(self, schema_id: int) -> Schema:
        """The schema with this id."""
        ...

    def latest(self, subject: str) -> Schema | None:
        """The newest schema of a subject, asked anew each time; None if there is none."""
        ...

    def check(self) -> None:
        """Raises, as above, unless the registry answers."""
        ...

    def try_out(self, subject: str, schema: Schema) -> None:
        """IncompatibleError if registering the schema would raise it. Registers nothing."""
        ...

    def close(self) -> None:
        """Closes its connections. It is not used after that."""
        ...


def open_registry(url: str, options: Mapping[str, str] | None = None) -> Registry:
    """A registry by its URL. `options`: those of confluent-kafka's SchemaRegistryClient, such as `basic.auth.user.info`
    and `ssl.ca.location`. SettingsError for a wrong URL or option."""
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.path and parts.netloc in ("", "localhost"):
        return FolderRegistry(Path(unquote(parts.path)))
    if parts.scheme in ("http", "https") and parts.netloc:
        http: Registry = import_module("schemas.registry.http").HttpRegistry(url, options or {})
        return http
    raise SettingsError(
        f"schema_registry_url: {parts.scheme or 'no scheme'} is not a registry",
        "write http://host:8081, https://… or file:///absolute/folder",
    )


def canonical(schema: Schema) -> str:
    """A schema as text, the same for equal schemas: without blanks, with properties in their order."""
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))


class FolderRegistry:
    """A folder with `<id>.json` for each schema and `subjects/<subject>` listing ids, shared by processes. Writers lock
    the folder. A file appears whole (written aside, then linked), so readers need no lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ids: dict[tuple[str, str], int] = {}
        self._schemas: dict[int, Schema] = {}
        self._known: dict[bytes, int] = {}  # ids by the hash of the schema's text, of all files up to the last one
        self._last = 0
        try:
            (folder / "subjects").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from None

    def register(self, subject: str, schema: Schema) -> int:
        """See Registry. Every schema is compatible here."""
        self.register_all([(subject, schema)])
        return self._ids[subject, canonical(schema)]

    def register_all(self, schemas: Sequence[tuple[str, Schema]]) -> None:
        """See Registry. Every schema is compatible here."""
        wanted = dict.fromkeys((subject, canonical(schema)) for subject, schema in schemas)
        new = [each for each in wanted if each not in self._ids]
        if not new:
            return
        try:
            with self._lock():
                self._look()
                self._ids |= self._add(new)
        except OSError as error:
            raise self._unusable(error) from None

    def schema(self, schema_id: int) -> Schema:
        """See Registry."""
        if schema_id not in self._schemas:
            path = self._folder / f"{schema_id}.json"
            try:
                self._schemas[schema_id] = json.loads(path.read_text("utf-8"))
            except FileNotFoundError:
                raise unknown_id(schema_id, self._folder.as_uri()) from None
            except OSError as error:
                raise self._unusable(error) from None
            except ValueError:
                raise DataError(f"{path} is not JSON") from None
        return self._schemas[schema_id]

    def latest(self, subject: str) -> Schema | None:
        """See Registry."""
        try:
            listed = self._listed(subject)
        except OSError as error:
            raise self._unusable(error) from None
        return self.schema(int(listed[-1])) if listed else None

    def check(self) -> None:
        """See Registry. Checks that the folder can be written."""
        if not os.access(self._folder / "subjects", os.W_OK):
            raise self._unusable(PermissionError("not writable"))

    def try_out(self, subject: str, schema: Schema) -> None:
        """See Registry. Every schema is compatible here."""

    def close(self) -> None:
        """See Registry. Nothing is open between calls."""

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _look(self) -> None:
        """Notes new schemas; the caller holds the lock. Files never change, so each is read once, all of them at
        first."""
        ids = [] if self._last else sorted(int(path.stem) for path in self._folder.glob("*.json"))
        for schema_id in ids:
            self._note(schema_id)
        while (self._folder / f"{self._last + 1}.json").exists():
            self._note(self._last + 1)

    def _note(self, schema_id: int) -> None:
        text = (self._folder / f"{schema_id}.json").read_text("utf-8")
        self._known.setdefault(_hash(text), schema_id)
        self._last = schema_id

    def _add(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """Adds (subject, text) to what _look() found. Returns their ids."""
        texts = dict.fromkeys(text for _, text in wanted if _hash(text) not in self._known)
        self._write(self._folder, {f"{number}.json": text for number, text in enumerate(texts, self._last + 1)})
        self._look()
        ids = {(subject, text): self._known[_hash(text)] for subject, text in wanted}
        lists: dict[str, list[str]] = {}
        for (subject, _), schema_id in ids.items():
            listed = lists.get(_file_of(subject)) or self._listed(subject)
            if str(schema_id) not in listed:
                lists[_file_of(subject)] = [*listed, str(schema_id)]
        self._write(self._folder / "subjects", {name: "\n".join(listed) + "\n" for name, listed in lists.items()})
        return ids

    def _listed(self, subject: str) -> list[str]:
        try:
            return (self._folder / "subjects" / _file_of(subject)).read_text("utf-8").split()
        except FileNotFoundError:
            return []

    def _write(self, folder: Path, texts: Mapping[str, str]) -> None:
        """Writes files. They appear whole, and are durable on return: records that name these ids outlive a power
        cut."""
        asides = {name: folder / f".{name}.{os.getpid()}" for name in texts}
        for name, aside in asides.items():
            aside.write_text(texts[name], "utf-8")
        for aside in asides.values():
            _sync(aside)
        for name, aside in asides.items():
            aside.replace(folder / name)
        if asides:
            _sync(folder)

    def _unusable(self, error: OSError) -> UnavailableError:
        reason = error.strerror or str(error)
        return UnavailableError(f"schema registry folder {self._folder}: {reason}", "make it writable for this user")


def _file_of(subject: str) -> str:
    return subject.replace("/", "%2F")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def unknown_id(schema_id: int, url: str) -> DataError:
    """The error for an id that the registry does not have."""
    return DataError(f"schema {schema_id} is not in the registry {url}", "check that it is the one capture wrote to")
