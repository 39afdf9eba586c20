"""All keys of a kind of document, as reconcile lists them."""

from sink.database import Cursor
from sink.documents.build import next_of_list, open_list
from sink.documents.profile import Profile

_MORE_THAN_THERE_ARE = 1_000_000


def all_keys(cursor: Cursor, profile: Profile, name: str) -> list[str]:
    """Keys of documents, ready or not, unit by unit."""
    open_list(cursor, profile, {name}, hold=False)
    keys = [one.ref.key for one in next_of_list(cursor, _MORE_THAN_THERE_ARE)]
    cursor.execute("CLOSE in_units")
    return keys
