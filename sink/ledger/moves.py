"""Documents whose key the shop has changed: the ERP's document continues under the new key."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from psycopg2.extras import execute_values

from sink.database import OF_THESE, Cursor, these
from sink.documents.refs import DocumentRef
from sink.ledger import documents, history, leases
from sink.ledger.documents import Entry
from sink.ledger.leases import Lease
from sink.ledger.outcomes import State

_FORMER: Final = f"""
WITH RECURSIVE chain AS (
    SELECT type, key, old_key, 1 AS steps FROM key_change
     WHERE {OF_THESE}
    UNION ALL
    SELECT c.type, c.key, k.old_key, steps + 1 FROM chain AS c
      JOIN key_change AS k ON k.type = c.type AND k.key = c.old_key WHERE steps < 20
)
SELECT DISTINCT ON (c.type, c.key) c.type, c.key, d.key FROM chain AS c
  LEFT JOIN document AS d ON d.type = c.type AND d.key = c.old_key AND d.key <> c.key
   AND (d.applied IS NOT NULL OR d.account IS NOT NULL OR d.intent IS NOT NULL OR d.state = 'ignored'
        OR EXISTS (SELECT FROM unit AS u WHERE u.unit = d.unit AND u.owner <> %s AND u.deadline > clock_timestamp()))
 ORDER BY c.type, c.key, d.key IS NULL, steps
"""  # noqa: S608  our own text
_ALIKE: Final = """
SELECT type, key, fingerprint, state = 'ignored' OR coalesce(decisions ->> 'settled', '') <> '' FROM document
 WHERE fingerprint = ANY(%(seen)s) AND applied IS NOT NULL
UNION ALL
SELECT type, key, intent ->> 'fingerprint', false FROM document
 WHERE intent ->> 'fingerprint' = ANY(%(seen)s) AND applied IS NULL
UNION ALL
SELECT d.type, d.key, n.seen, true FROM unnest(%(numbers)s::text[], %(seen)s::text[]) AS n (number, seen)
  JOIN document AS d ON d.number = n.number
 WHERE d.state = 'ignored' AND d.fingerprint IS NULL AND d.intent IS NULL
 ORDER BY 1, 2
"""
_ANSWERED: Final = """
SELECT EXISTS (SELECT FROM document AS n JOIN history AS h ON (h.type, h.key) = (%(type)s, %(old)s)
 WHERE (n.type, n.key) = (%(type)s, %(key)s) AND n.check_name = 'moved' AND h.event IN ('document accepted', 'ignored')
   AND h.at > (SELECT max(at) FROM history AS d WHERE (d.type, d.key) = (n.type, n.key) AND d.event = 'held'))
"""


class Former(NamedTuple):
    """`olds`: what new documents may have been before; `logged`: those whose change of key is in the shop's log."""

    olds: dict[DocumentRef, list[DocumentRef]]
    logged: set[DocumentRef]


def note(cursor: Cursor, changed: Mapping[DocumentRef, str]) -> None:
    """Writes changes of keys: the document's new name, and its key before."""
    if changed:
        execute_values(
            cursor,
            "INSERT INTO key_change (type, key, old_key) VALUES %s"
            " ON CONFLICT (type, key) DO UPDATE SET old_key = excluded.old_key",
            [(*ref, old) for ref, old in sorted(changed.items())],
        )


def former(cursor: Cursor, new: Mapping[DocumentRef, str | None], owner: str) -> Former:
    """For new documents, with their fingerprints: the documents that they may have been under another key.

    Changes of keys in the shop's log come first, then fingerprints. A candidate is in the ERP, on its way there, or
    ignored by a person (one that the ERP never got is known by its number alone). By the log, a customer who shares an
    account counts, too, and so does a document that another worker than `owner` has and may be about to send.

    A candidate is left out if a person decided, while the new document was held for it, that it stays as it is.
    """
    cursor.execute(_FORMER, (*these(new), owner))
    rows = cursor.fetchall()
    found = {DocumentRef(type_, key): [DocumentRef(type_, old)] for type_, key, old in rows if old is not None}
    alike = {ref: seen for ref, seen in new.items() if seen and ref not in found}
    if alike:
        numbers = [seen.rsplit("|", 2)[0] for seen in alike.values()]
        cursor.execute(_ALIKE, {"seen": list(alike.values()), "numbers": numbers})
        olds = cursor.fetchall()
        for ref, seen in alike.items():
            of = [
                (DocumentRef(ref.type, key), said) for type_, key, was, said in olds if (type_, was) == (ref.type, seen)
            ]
            if some := [old for old, said in of if not (said and _is_answer(cursor, ref, old))]:
                found[ref] = some
    return Former(found, {DocumentRef(type_, key) for type_, key, _ in rows})


def _is_answer(cursor: Cursor, new: DocumentRef, old: DocumentRef) -> bool:
    """Whether a person decided about the old document while the new one was held for it."""
    cursor.execute(_ANSWERED, {"type": new.type, "key": new.key, "old": old.key})
    return bool((cursor.fetchone() or (False,))[0])


def forget(cursor: Cursor, refs: Collection[DocumentRef]) -> None:
    """Deletes the recorded key changes of documents, earlier keys included.

    They are needed only while a document is new. Once the document goes on, nothing under the old key is left in the
    shop or about to be sent.
    """
    cursor.execute(
        "WITH RECURSIVE chain AS (SELECT type, key, old_key FROM key_change"  # noqa: S608  our own text
        f"  WHERE {OF_THESE}"
        " UNION SELECT k.type, k.key, k.old_key FROM chain AS c"
        "  JOIN key_change AS k ON (k.type, k.key) = (c.type, c.old_key))"
        " DELETE FROM key_change AS k USING chain AS c WHERE (k.type, k.key) = (c.type, c.key)",
        these(refs),
    )


def forget_others(cursor: Cursor) -> None:
    """Deletes key changes that are never needed: of documents that are gone from the shop, or that the ERP has under
    this key. Keeps those that another change leads to."""
    cursor.execute(
        "DELETE FROM key_change AS k USING document AS d WHERE (d.type, d.key) = (k.type, k.key) AND d.seen = d.marked"
        " AND (d.state = 'gone' OR d.external IS NOT NULL OR d.account IS NOT NULL)"
        " AND NOT EXISTS (SELECT FROM key_change AS n WHERE (n.type, n.old_key) = (k.type, k.key))"
    )


def move(cursor: Cursor, old: DocumentRef, new: DocumentRef) -> None:
    """Gives the old document's key in the ERP, its applied record and its history to the new one. The old one starts
    afresh, in case the shop uses its key again. The caller's transaction proves the leases of both."""
    was = documents.entries_of(cursor, [old])[old]
    cursor.execute(
        "UPDATE document AS d SET needed = d.needed OR %s, made_by = w.made_by FROM document AS w"
        " WHERE (d.type, d.key) = (%s, %s) AND (w.type, w.key) = (%s, %s)",
        (was.needed, *new, *old),
    )
    documents.save(
        cursor, old, applied=None, external=None, reference=None, reached=None, fingerprint=None, number=None,
        account=None, revision=0, incarnation=was.incarnation + 1, marked=was.marked + 1, made_by=None, decisions=None,
        state=State.DUE, held_since=None, check_name=None,
    )  # fmt: skip
    documents.save(
        cursor, new, applied=was.applied, external=was.external, reference=was.reference, reached=was.reached,
        fingerprint=was.fingerprint, revision=was.revision, account=was.account, decisions=was.decisions,
    )  # fmt: skip
    cursor.execute("UPDATE history SET key = %s WHERE type = %s AND key = %s", (new.key, *old))
    history.note(cursor, old, "moved", f"its key in the shop is {new.key} now")
    history.note(cursor, new, "moved", f"its key in the shop was {old.key}")


def hand_over(cursor: Cursor, leased: Sequence[Lease], ones: Sequence[Entry]) -> None:
    """Moves documents to the unit of the order that the shop has given them to, and makes that unit due. They had an
    intent when the shop did it."""
    leases.prove(cursor, leased, {one.next_unit for one in ones if one.next_unit})
    cursor.execute(
        "UPDATE document SET unit = next_unit, next_unit = NULL"  # noqa: S608  our own text
        f" WHERE {OF_THESE}"
        " AND next_unit IS NOT NULL AND intent IS NULL RETURNING unit",
        these(one.ref for one in ones),
    )
    units = sorted({row[0] for row in cursor.fetchall()})
    cursor.execute("UPDATE unit SET due_at = least(due_at, clock_timestamp()) WHERE unit = ANY(%s)", (units,))
