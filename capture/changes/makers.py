"""What makes the records of a stream."""

from __future__ import annotations

from typing import NamedTuple

from capture.changes.messages import Messages
from capture.changes.own_records import OwnRecords
from capture.changes.tables import Tables
from capture.changes.transaction import RecordLimit
from schemas.writing.codec import SourceOrigin


class Makers(NamedTuple):
    """What makes records of changes and of the shop's logical messages, and the records beside them. `origin` is what
    each record says of where it comes from, `limit` is how large one may be.
    """

    tables: Tables
    messages: Messages
    own: OwnRecords
    origin: SourceOrigin
    limit: RecordLimit
