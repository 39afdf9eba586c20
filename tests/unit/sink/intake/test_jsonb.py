"""Text that jsonb cannot hold is found, quickly even in texts that are made to be slow."""

import pytest

from sink.intake.jsonb import unfit


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('"\\u0000"', "the character"),
        ('"\\\\u0000"', None),
        ('"\\ud83d\\ude00"', None),
        ('"\\ud83d"', "half of a surrogate pair"),
        ('{"1e999999": 2}', None),
        ("1e999999", "so large"),
        ("[1, " + "1" * 131_073 + "]", "so large"),
        ("1" * 131_072, None),
        ("0." + "1" * 16_384, "so fine"),
    ],
)
def test_a_reason_or_none(text: str, reason: str | None) -> None:
    found = unfit(text)
    assert found is None if reason is None else reason in (found or "")


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "text", ["[" + ",".join(["1" * 9999] * 100) + "]", '"' + '\\"' * 500_000 + "1" * 20_000, '"' * 500_001 + "1e99999"]
)
def test_a_long_text_takes_no_longer_than_it_is(text: str) -> None:
    unfit(text)
