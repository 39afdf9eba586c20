"""The parts that make a stream's records."""

from __future__ import annotations

from typing import NamedTuple

from capture.changes.messages import Messages
from capture.changes.own_records import OwnRecords
from capture.changes.tables import Tables
from capture.changes.transaction import RecordLimit
from schemas.writing.codec import SourceOrigin


class Makers(NamedTuple):
    """Makes records of changes and logical messages, and the records beside them. `origin`: what each record says about
    its source. `limit`: how large a record may be."""

    tables: Tables
    messages: Messages
    own: OwnRecords
    origin: SourceOrigin
    limit: RecordLimit
