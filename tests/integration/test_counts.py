"""Counts of documents by state, without scanning all that are done."""

from sink.database import Connection, transaction
from sink.documents.refs import DocumentRef
from sink.ledger import documents, listed
from tests.fix_erp import mark

ALL = (
    "SELECT type, CASE WHEN seen < marked AND state <> 'held' THEN 'due' ELSE state END, count(*)"
    " FROM document GROUP BY 1, 2"
)
MANY = (
    "INSERT INTO document (type, key, unit, state, seen) SELECT t, n::text, t || ':' || n, 'done', 1"
    " FROM unnest(ARRAY['sales_order', 'customer']) t, generate_series(1, 20000) n"
)
CHANGES = (
    MANY,
    "UPDATE document SET state = 'held', seen = seen + 1 WHERE key IN ('3', '5')",
    "UPDATE document SET state = 'gone' WHERE type = 'sales_order' AND key::int % 100 = 7",
    "UPDATE document SET state = 'not ready' WHERE key = '50'",
    "UPDATE document SET marked = marked + 1 WHERE key::int % 1000 < 10",
    "DELETE FROM document WHERE type = 'customer' AND key::int > 19000",
    "DELETE FROM document WHERE type = 'customer'",
)


def test_counts_are_those_of_all_documents_after_each_change(middle: Connection) -> None:
    with transaction(middle) as cursor:
        for change in CHANGES:
            cursor.execute(change)
            counted = documents.counts(cursor)
            cursor.execute(ALL)
            assert counted == {(type_, state): count for type_, state, count in cursor.fetchall()}, change
    assert {state for _, state in counted} == {"done", "due", "gone", "held", "not ready"}


def test_a_document_that_is_marked_again_is_counted_once(middle: Connection) -> None:
    for _ in range(2):
        mark(middle, DocumentRef("price", "A"), DocumentRef("price", "B"))
    with transaction(middle) as cursor:
        assert documents.counts(cursor) == {("price", "due"): 2}
        assert documents.types(cursor) == {"price"}


def test_what_is_done_is_not_looked_at(middle: Connection) -> None:
    with transaction(middle) as cursor:
        for change in CHANGES[:4]:
            cursor.execute(change)
    with middle.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE document")
    read = "SELECT seq_scan, seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'document'"
    with transaction(middle) as cursor:
        cursor.execute(read)
        before = cursor.fetchall()
        documents.counts(cursor)
        listed.held(cursor, "", 20)
        documents.types(cursor)
        cursor.execute(read)
        assert cursor.fetchall() == before
        cursor.execute(ALL)
        cursor.execute(read)
        assert cursor.fetchall() != before, "a scan would not be seen"
