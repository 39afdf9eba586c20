"""The decoders of the schemas that records name, compiled once each."""

from __future__ import annotations

from schemas.errors import DataError
from schemas.registry import Registry
from sink.intake.copy_text import WRITER_HINT
from sink.intake.decoder import Decoder, KeyDecoder, compile_decoder, compile_key_decoder


class RegistryDecoders:
    """Decoders by the four bytes of a schema id. UnavailableError when the registry does not answer."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._values: dict[bytes, Decoder] = {}
        self._keys: dict[bytes, KeyDecoder] = {}

    def value(self, schema_id: bytes) -> Decoder:
        """That of a value's schema; DataError when the id is of none."""
        found = self._values.get(schema_id)
        if found is None:
            found = self._values[schema_id] = compile_decoder(self._registry.schema(_number(schema_id)))
        return found

    def key(self, schema_id: bytes) -> KeyDecoder:
        """That of a key's schema; DataError when the id is of none."""
        found = self._keys.get(schema_id)
        if found is None:
            found = self._keys[schema_id] = compile_key_decoder(self._registry.schema(_number(schema_id)))
        return found


def _number(schema_id: bytes) -> int:
    if len(schema_id) != 4:
        raise DataError("not an Avro record: it has no schema id", WRITER_HINT)
    return int.from_bytes(schema_id, "big")
