"""Arrays and hstores as PostgreSQL shows them, where that is long. Their values: tests/integration/test_types.py."""

import tracemalloc
from collections.abc import Callable

import pytest

from schemas.types.arrays import array_encoder, hstore
from schemas.types.encoders import sized

MILLION = 1_000_000


@pytest.mark.parametrize("encode", [array_encoder(sized), hstore], ids=["array", "hstore"])
@pytest.mark.parametrize("content", [b"a b" * (MILLION // 3), b'a\\"\\\\' * (MILLION // 5)], ids=["plain", "escaped"])
def test_a_long_text_takes_a_small_multiple_of_its_size_in_memory(
    encode: Callable[[bytes], bytes], content: bytes
) -> None:
    text = b'"k"=>"%b"' % content if encode is hstore else b'{"%b"}' % content
    tracemalloc.start()
    try:
        encoded = encode(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(encoded) > MILLION // 2
    assert peak < 40 * MILLION
