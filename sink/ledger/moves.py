"""Documents whose key the shop has changed: what the ERP has of them goes on under the new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from psycopg2.extras import execute_values

from sink.database import Cursor
from sink.documents.refs import DocumentRef
from sink.ledger import documents, history, leases
from sink.ledger.documents import Entry
from sink.ledger.leases import Lease
from sink.ledger.outcomes import State

_FORMER: Final = """
WITH RECURSIVE chain AS (
    SELECT type, key, old_key, 1 AS steps FROM key_change WHERE (type, key) IN %s
    UNION ALL
    SELECT c.type, c.key, k.old_key, steps + 1 FROM chain AS c
      JOIN key_change AS k ON k.type = c.type AND k.key = c.old_key WHERE steps < 20
)
SELECT DISTINCT ON (c.type, c.key) c.type, c.key, d.key FROM chain AS c
  JOIN document AS d ON d.type = c.type AND d.key = c.old_key
 WHERE d.key <> c.key AND (d.applied IS NOT NULL OR d.account IS NOT NULL OR d.intent IS NOT NULL OR d.state = 'ignored'
        OR EXISTS (SELECT FROM unit AS u WHERE u.unit = d.unit AND u.owner <> %s AND u.deadline > clock_timestamp()))
 ORDER BY c.type, c.key, steps
"""


def note(cursor: Cursor, changed: Mapping[DocumentRef, str]) -> None:
    """Keys that the shop has changed: the document as it is called now, and its key before."""
    if changed:
        execute_values(
            cursor,
            "INSERT INTO key_change (type, key, old_key) VALUES %s"
            " ON CONFLICT (type, key) DO UPDATE SET old_key = excluded.old_key",
            [(*ref, old) for ref, old in sorted(changed.items())],
        )


def former(cursor: Cursor, new: Mapping[DocumentRef, str | None], owner: str) -> dict[DocumentRef, list[DocumentRef]]:
    """What new documents may have been before, with their fingerprints given: a document that the ERP has, or a
    customer whose account it has, by the log, else by the fingerprint. Those that a person has settled are none. By the
    log also one that a person ignores, or that another worker than `owner` has, and may be about to send; by either one
    that is on its way there."""
    cursor.execute(_FORMER, (tuple(tuple(ref) for ref in new), owner))
    found = {DocumentRef(type_, key): [DocumentRef(type_, old)] for type_, key, old in cursor.fetchall()}
    alike = [(ref, seen) for ref, seen in new.items() if seen and ref not in found]
    if alike:
        cursor.execute(
            "SELECT type, key, fingerprint FROM document WHERE fingerprint = ANY(%(seen)s) AND applied IS NOT NULL"
            " AND state <> 'ignored' AND coalesce(decisions ->> 'settled', '') = ''"
            " UNION ALL SELECT type, key, intent ->> 'fingerprint' FROM document"
            "  WHERE intent ->> 'fingerprint' = ANY(%(seen)s) AND applied IS NULL ORDER BY 1, 2",
            {"seen": [seen for _, seen in alike]},
        )
        olds = cursor.fetchall()
        for ref, seen in alike:
            if some := [DocumentRef(type_, key) for type_, key, was in olds if (type_, was) == (ref.type, seen)]:
                found[ref] = some
    return found


def move(cursor: Cursor, old: DocumentRef, new: DocumentRef) -> None:
    """The old document's key in the ERP, what was written of it and its history are the new one's; the old one, should
    the shop use its key again, begins anew. The caller's transaction proves the leases of both."""
    was = documents.entries_of(cursor, [old])[old]
    cursor.execute(
        "UPDATE document AS d SET needed = d.needed OR %s, made_by = w.made_by FROM document AS w"
        " WHERE (d.type, d.key) = (%s, %s) AND (w.type, w.key) = (%s, %s)",
        (was.needed, *new, *old),
    )
    documents.save(
        cursor, old, applied=None, external=None, reference=None, reached=None, fingerprint=None, number=None,
        account=None, revision=0, incarnation=was.incarnation + 1, marked=was.marked + 1, made_by=None, decisions=None,
        state=State.DUE,
    )  # fmt: skip
    documents.save(
        cursor, new, applied=was.applied, external=was.external, reference=was.reference, reached=was.reached,
        fingerprint=was.fingerprint, revision=was.revision, account=was.account, decisions=was.decisions,
    )  # fmt: skip
    cursor.execute("UPDATE history SET key = %s WHERE type = %s AND key = %s", (new.key, *old))
    cursor.execute("DELETE FROM key_change WHERE type = %s AND key = %s", tuple(new))
    history.note(cursor, old, "moved", f"its key in the shop is {new.key} now")
    history.note(cursor, new, "moved", f"its key in the shop was {old.key}")


def hand_over(cursor: Cursor, held: Sequence[Lease], ones: Sequence[Entry]) -> None:
    """Documents of which a step was under way when the shop gave them to another order go to that one's unit, which is
    due by them."""
    leases.prove(cursor, held, {one.next_unit for one in ones if one.next_unit})
    cursor.execute(
        "UPDATE document SET unit = next_unit, next_unit = NULL"
        " WHERE (type, key) IN %s AND next_unit IS NOT NULL AND intent IS NULL RETURNING unit",
        (tuple(tuple(one.ref) for one in ones),),
    )
    units = sorted({row[0] for row in cursor.fetchall()})
    cursor.execute("UPDATE unit SET due_at = least(due_at, clock_timestamp()) WHERE unit = ANY(%s)", (units,))
