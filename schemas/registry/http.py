"""A schema registry behind HTTP. It has a file of its own because the client library takes 20 MB of memory."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from urllib.parse import urlsplit

from confluent_kafka.schema_registry import Schema as RegisteredSchema
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from schemas.model.errors import DataError, SettingsError, UnavailableError
from schemas.registry.registry import IncompatibleError, canonical, unknown_id
from schemas.types.kind import Schema

# The HTTP library that confluent-kafka's client chooses: httpx2 where it is there.
_TransportError: type[Exception] = import_module("httpx2" if find_spec("httpx2") else "httpx").HTTPError

_NEXT_STEP = "check schema_registry_url and that the registry answers there, then start again"
_FILES = "check that ssl.ca.location, ssl.certificate.location and ssl.key.location are PEM files that we may read"
# The caller tries again by its own rule, and must not be kept from PostgreSQL's keepalives for long.
_PATIENCE = {"timeout": 10, "max.retries": 1}
_NUMBERS = ("timeout", "max.retries", "retries.wait.ms", "retries.max.wait.ms")
_AT_ONCE = 8  # requests
_NOT_FOUND = (40402, 40403)
_INCOMPATIBLE = 409
_REFUSED = (401, 403)
_INVALID = 422


def _without_user(url: str) -> str:
    """The address without what may not be shown."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


class HttpRegistry:
    """A registry that speaks Confluent's API, through confluent-kafka's client (Confluent, Apicurio, Karapace)."""

    def __init__(self, url: str, options: Mapping[str, str]) -> None:
        self._url = _without_user(url)
        self._ids: dict[tuple[str, str], int] = {}
        self._schemas: dict[int, Schema] = {}
        try:
            numbers = {name: float(options[name]) for name in _NUMBERS if name in options}
            self._client = SchemaRegistryClient({"url": url, **_PATIENCE, **options, **numbers})
        except (TypeError, ValueError) as error:
            raise SettingsError(f"schema_registry: {error}", "see confluent-kafka's SchemaRegistryClient") from None
        except OSError as error:  # it reads the files of ssl.* at once; ssl.SSLError is one, too
            reason = error.strerror or str(error)
            raise SettingsError(f"schema_registry: the files of ssl.*: {reason}", _FILES) from None
        # Its pooled connections end with this object at the latest.
        self._end = weakref.finalize(self, self._client.__exit__, None, None, None)

    def register(self, subject: str, schema: Schema) -> int:
        """See Registry."""
        text = canonical(schema)
        known = self._ids.get((subject, text))
        if known is None:
            with self._answering(subject):
                known = int(self._client.register_schema(subject, RegisteredSchema(text, "AVRO")))
            self._ids[subject, text] = known
        return known

    def register_all(self, schemas: Sequence[tuple[str, Schema]]) -> None:
        """See Registry. Asks for several at once."""

        def register(pair: tuple[str, Schema]) -> None:
            with suppress(IncompatibleError):
                self.register(*pair)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(register, schemas))  # raises the first error

    def schema(self, schema_id: int) -> Schema:
        """See Registry."""
        if schema_id not in self._schemas:
            with self._answering(None, schema_id):
                found = self._client.get_schema(schema_id)
            try:
                self._schemas[schema_id] = json.loads(found.schema_str or "")
            except (TypeError, ValueError):
                raise DataError(f"schema {schema_id} of {self._url} is not Avro") from None
        return self._schemas[schema_id]

    def latest(self, subject: str) -> Schema | None:
        """See Registry."""
        with self._answering(subject):
            try:
                schema_id = self._client.get_latest_version(subject).schema_id
            except SchemaRegistryError as error:
                if error.http_status_code == 404:
                    return None
                raise
        return None if schema_id is None else self.schema(schema_id)

    def check(self) -> None:
        """See Registry."""
        with self._answering(None):
            self._client.get_subjects()

    def try_out(self, subject: str, schema: Schema) -> None:
        """See Registry. The registry decides by the subject's own compatibility rule."""
        with self._answering(subject):
            try:
                compatible = self._client.test_compatibility(subject, RegisteredSchema(canonical(schema), "AVRO"))
            except SchemaRegistryError as error:
                if error.http_status_code == 404:  # the subject is new
                    return
                raise
        if not compatible:
            raise IncompatibleError(subject, f"not compatible with the newest version under {self._rule(subject)}")

    def _rule(self, subject: str) -> str:
        """The compatibility rule of a subject, else the registry's."""
        with self._answering(subject):
            try:
                return str(self._client.get_compatibility(subject))
            except SchemaRegistryError as error:
                if error.http_status_code != 404:
                    raise
            return str(self._client.get_compatibility())

    def close(self) -> None:
        """See Registry."""
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
            return unknown_id(schema_id, self._url)
        if status in _REFUSED:
            return SettingsError(
                f"schema registry {self._url} refuses us: HTTP {status}", "check its user and password"
            )
        return UnavailableError(f"schema registry {self._url}: {error.error_message} (HTTP {status})", _NEXT_STEP)
