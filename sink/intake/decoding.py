"""The decoders for the schemas that records name, each compiled once."""

from __future__ import annotations

from schemas.model.errors import DataError
from schemas.registry.registry import Registry
from sink.intake.copy_text import WRITER_HINT
from sink.intake.decoder import Decoder, KeyDecoder, compile_decoder, compile_key_decoder


class RegistryDecoders:
    """Decoders by the four bytes of a schema id. UnavailableError if the registry does not answer."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._values: dict[bytes, Decoder] = {}
        self._keys: dict[bytes, KeyDecoder] = {}

    def value(self, schema_id: bytes) -> Decoder:
        """The decoder for a value's schema id. DataError if it is not the id of a value schema."""
        found = self._values.get(schema_id)
        if found is None:
            found = self._values[schema_id] = compile_decoder(self._registry.schema(_number(schema_id)))
        return found

    def key(self, schema_id: bytes) -> KeyDecoder:
        """The decoder for a key's schema id. DataError if it is not the id of a key schema."""
        found = self._keys.get(schema_id)
        if found is None:
            found = self._keys[schema_id] = compile_key_decoder(self._registry.schema(_number(schema_id)))
        return found


def _number(schema_id: bytes) -> int:
    if len(schema_id) != 4:
        raise DataError("not an Avro record: it has no schema id", WRITER_HINT)
    return int.from_bytes(schema_id, "big")
