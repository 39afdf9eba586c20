"""The decoder refuses the same JSON as a real server."""

from __future__ import annotations

from contextlib import closing

import psycopg2

from sink.database import connect
from sink.intake import jsonb

JSON = [
    r'"\u0000"', r'"\\u0000"', r'"\\\u0000"', r'"\\ud83d"', r'"\ud83d"', r'"\ude00"', r'"\ud83d\ude00"',
    r'"\ude00\ud83d"', r'{"x": "\uD83D\uDE00 \ud83d"}', r'[1e1, {"a\u0000": 1}]', '"1e999999"', "0e999999", "0e-99999",
    "1e+99999", "1e131071", "1.5e131071", "0.1e131072", "1e131072", "-1e131072", "1e10000000000",
    "1e99999999999999999999", "1e-16383", "1e-16384", "0." + "1" * 16383, "0." + "1" * 16384,
    "1" * 131072, "1" * 131073,
]  # fmt: skip


def test_what_jsonb_refuses_is_what_the_server_refuses(database: str) -> None:
    wrong = {}
    with closing(connect(database, "public")) as connection, connection.cursor() as cursor:
        for text in JSON:
            cursor.execute("SELECT %s::json::text", (text,))  # the premise
            try:
                cursor.execute("SELECT %s::jsonb::text", (text,))
                refused = False
            except psycopg2.DataError:
                refused = True
            if refused != (jsonb.unfit(text) is not None):
                wrong[text[:24]] = refused
    assert wrong == {}
