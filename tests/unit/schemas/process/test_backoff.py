"""The wait before another attempt doubles, up to the longest."""

import pytest

from schemas.process.backoff import backoff


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 0.5), (2, 1.0), (5, 8.0), (6, 10.0), (10_000, 10.0)])
def test_it_doubles_up_to_the_longest(attempt: int, seconds: float) -> None:
    assert backoff(attempt, 0.5, longest=10.0) == seconds


def test_the_random_part_comes_on_top_and_never_makes_it_longer_than_the_longest() -> None:
    waits = [backoff(2, 0.5, longest=1.5, spread=1.0) for _ in range(1000)]
    assert 1.0 <= min(waits) < 1.1
    assert max(waits) == 1.5
