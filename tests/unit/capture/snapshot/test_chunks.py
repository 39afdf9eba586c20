"""Which parts of a snapshot are copied in one Kafka transaction."""

import pytest

from capture.snapshot.chunks import CHUNK_BYTES, together
from capture.snapshot.copying import Chunk

SMALL = CHUNK_BYTES // 100


def groups(*sizes: int, workers: int) -> list[int]:
    """How many chunks are in each group."""
    chunks = [Chunk(number, "COPY", size) for number, size in enumerate(sizes)]
    made = list(together(chunks, workers))
    assert [chunk for group in made for chunk in group] == chunks
    return [len(group) for group in made]


@pytest.mark.parametrize("workers", [1, 2])
def test_few_chunks_are_alone_and_many_small_ones_go_together_so_that_each_worker_gets_several(workers: int) -> None:
    assert groups(workers=workers) == []
    assert groups(*[SMALL] * 15, workers=workers) == [1] * 15
    assert groups(*[SMALL] * 80 * workers, workers=workers) == [10] * 8 * workers


def test_what_goes_together_is_no_more_than_one_large_chunk() -> None:
    assert groups(*[CHUNK_BYTES, SMALL, SMALL, CHUNK_BYTES], *[SMALL] * 60, workers=1) == [1, 2, 1, *[8] * 7, 4]
    assert max(groups(*[CHUNK_BYTES // 3] * 100, workers=1)) == 3
