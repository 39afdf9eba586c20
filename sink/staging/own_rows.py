"""Whether a change may be missing of a document's own row, the one with its key, or of its rows if it has several.

A gap says since when changes of a table are missing. A row that is newer than the gap is up to date: a missing change
was of another row, or is overwritten.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from psycopg2 import sql

from sink.database import Cursor
from sink.documents.profile import DocumentRule, Profile
from sink.documents.refs import DocumentRef
from sink.ledger import blocked
from sink.staging.gaps import TableGap
from sink.staging.schema import stored_name

_Place = tuple[int, int]  # generation, LSN


def doubtful(
    cursor: Cursor, profile: Profile, refs: Collection[DocumentRef], gaps: Collection[TableGap]
) -> set[DocumentRef]:
    """The documents of which a later change of the own row may be missing.

    That is so if the table has a gap and the row is not newer; if a record of a commit that touches the document is
    parked and the row is older than that commit; and for all documents if a parked record may be part of any.
    """
    commits = blocked.commits(cursor, refs) if refs else {}
    found: set[DocumentRef] = set()
    for name in {ref.type for ref in refs}:
        rule, some = profile.documents[name], {ref for ref in refs if ref.type == name}
        own = [gap for gap in gaps if gap.table == rule.root]
        if any(gap.cause == "unreadable" for gap in own):
            found |= some
        elif not rule.is_one_row:  # another row of the document may be missing as a whole
            found |= some if own else some & commits.keys()
        elif own or commits:
            behind = max((_place(*gap.stamp[:2]) for gap in own), default=(-1, -1))
            placed = _placed(cursor, rule, [ref.key for ref in some])
            found |= {
                ref for ref in some if not (at := placed.get(ref.key)) or at <= behind or at < commits.get(ref, at)
            }
    return found


def _placed(cursor: Cursor, rule: DocumentRule, keys: Collection[str]) -> dict[str, _Place]:
    """Key → position in the shop's log of its row. Scans the whole table, but only while changes are missing, which is
    rare."""
    table = sql.Identifier(stored_name(rule.root))
    parts: list[sql.Composable] = [
        sql.SQL('SELECT ({})::text AS key, "#generation" AS generation, "#lsn" AS lsn FROM {} AS changed').format(
            sql.SQL(touch.sql.replace("%", "%%") + "\n"), table
        )
        for touch in rule.touched_by
        if touch.table == rule.root and not touch.selects
    ]
    every = sql.SQL(" UNION ALL ").join(parts)
    query = sql.SQL("SELECT key, generation, lsn FROM ({}) AS k WHERE key = ANY(%s) ORDER BY generation, lsn")
    cursor.execute(query.format(every), (list(keys),))
    found: list[tuple[Any, ...]] = cursor.fetchall()
    return {key: _place(generation, lsn) for key, generation, lsn in found}


def _place(generation: int, lsn: Any) -> _Place:
    return generation, int(lsn)
