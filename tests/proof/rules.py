"""The promises about Kafka's records as pure checks. Each returns a list of findings."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from tests.proof.records import Listing, Record, Stamp, changes, table_of
from tests.proof.wal import Logged

Kind = Literal["lost", "double", "out of order", "wrong"]
Place: TypeAlias = tuple[int, int, str]
"""Generation and LSN; for a chunk, also its snapshot on demand."""
TableTopic: TypeAlias = tuple[str, ...]
"""A table, and a topic with its records."""


class Finding(NamedTuple):
    """One broken promise: what kind, and where to look."""

    kind: Kind
    text: str


class Snapshot(NamedTuple):
    """A completed snapshot, from its COMPLETED notice. `tables` were read as a whole. Rows of a snapshot on demand
    (`incremental`) have stamps of their own, after the `lsn` at which it was requested."""

    id: str
    generation: int
    lsn: int
    rows: Mapping[str, int]
    tables: frozenset[str] = frozenset()
    incremental: bool = False


def snapshots(records: Iterable[Record], prefix: str) -> list[Snapshot]:
    """The completed snapshots, in their order."""
    found = []
    for each in records:
        if each.topic == f"{prefix}.notification" and each.value and each.value["type"] == "COMPLETED":
            data = each.value["additional_data"]
            rows = {table: int(count) for table, count in json.loads(data["rows"]).items()}
            tables = frozenset(data["data_collections"].split(","))
            kind = each.value["aggregate_type"] == "Incremental Snapshot"
            found.append(Snapshot(data["snapshot_id"], int(data["generation"]), int(data["lsn"]), rows, tables, kind))
    return sorted(found, key=lambda snapshot: (snapshot.generation, snapshot.lsn))


def check_order(records: Iterable[Record], prefix: str) -> list[Finding]:
    """Within a partition, no stamp is below the one before it, and the records of one change keep their order."""
    steps = {("d", "old"): 0, ("tombstone", "old"): 1, ("c", "new"): 2, ("d", None): 0, ("tombstone", None): 1}
    last: dict[tuple[str, int], tuple[Stamp, int]] = {}
    found = []
    for each in sorted(_of_tables(records, prefix), key=lambda record: (record.topic, record.partition, record.offset)):
        if each.stamp is None:
            found.append(Finding("wrong", f"{each.where} has no ordertap.stamp"))
            continue
        place = (each.stamp, steps.get((each.op, each.key_change), 0))
        before = last.get((each.topic, each.partition))
        if before is not None and place < before:
            found.append(Finding("out of order", f"{each.where}: {place[0]} after {before[0]}"))
        last[each.topic, each.partition] = max(place, before or place)
    return found


def check_once(records: Iterable[Record], prefix: str, log: Iterable[Logged]) -> list[Finding]:
    """The streamed changes are those of the log from the consistent point on: each has all its records, once."""
    records = list(records)
    started = snapshots(records, prefix)
    start = started[0].lsn if started else 0
    tables = changes(records, prefix)
    seen = {table: _streamed(rows) for table, rows in tables.items()}
    found: list[Finding] = []
    expected: dict[str, dict[tuple[int, int], str]] = defaultdict(dict)
    for change in log:
        if change.commit_lsn >= start:
            expected[change.table][change.commit_lsn, change.ordinal] = change.op
    for table in sorted(expected.keys() | seen.keys()):
        partitions = _partitions(tables, table)
        for at in sorted(expected[table].keys() | seen.get(table, {}).keys()):
            parts = seen.get(table, {}).get(at, [])
            found += _one_change(f"{table} {at[0]}:{at[1]}", expected[table].get(at), parts, partitions)
    return found


def _streamed(rows: Iterable[Record]) -> dict[tuple[int, int], list[Record]]:
    seen: dict[tuple[int, int], list[Record]] = defaultdict(list)
    for each in rows:
        if each.op != "r" and each.stamp is not None:
            seen[each.stamp.commit_lsn, each.stamp.ordinal].append(each)
    return seen


def _partitions(tables: Mapping[str, list[Record]], table: str) -> int:
    return 1 + max((each.partition for each in tables.get(table, ())), default=0)


def _one_change(what: str, op: str | None, records: list[Record], partitions: int) -> list[Finding]:
    """Compares one change's records with what its op in the log asks for."""
    if op is None:
        return [Finding("double", f"{what} is in Kafka and not in the log ({records[0].where})")]
    if op == "t":
        places = Counter(each.partition for each in records if each.op == "t")
        doubled = [f"partition {place}" for place, count in places.items() if count > 1]
        missing = [] if len(places) >= partitions else [f"{partitions - len(places)} partitions"]
    else:
        parts = Counter((each.op, each.key_change) for each in records)
        wanted = _wanted(op, records)
        doubled = [f"{part} in {count} records" for part, count in parts.items() if count > wanted.get(part, 0)]
        missing = [f"{part}" for part, count in wanted.items() if parts[part] < count]
    return [Finding("double", f"{what}: {part}") for part in doubled] + [
        Finding("lost", f"{what}: {part}") for part in missing
    ]


def _wanted(op: str, records: list[Record]) -> dict[tuple[str, str | None], int]:
    keyed = any(each.key is not None for each in records)
    if op == "u" and any(each.key_change for each in records):
        return {("d", "old"): 1, ("tombstone", "old"): 1, ("c", "new"): 1}
    if op == "d" and keyed:
        return {("d", None): 1, ("tombstone", None): 1}
    return {(op, None): 1}


def check_index(records: Iterable[Record], index: Iterable[Listing]) -> list[Finding]:
    """The index of commits is an unbroken chain and lists each commit once, in order. For each commit it has the exact
    number of changes by table and topic; the two halves of a key change count apart."""
    index = list(index)
    found = _check_chain(index)
    listed: dict[Place, dict[TableTopic, int]] = {}
    for listing in index:
        for lsn, _ts_us, numbers, *snapshot in listing.content["commits"]:
            place = (listing.content["generation"], lsn, snapshot[0] if snapshot else "")
            if place in listed:
                found.append(Finding("double", f"index@{listing.offset}: {place} was listed before"))
            pairs = zip(numbers[::2], numbers[1::2], strict=True)
            listed[place] = {tuple(listing.content["tables"][number]): count for number, count in pairs}
    there = _written(records, index)
    for place in sorted(there.keys() | listed.keys()):
        if there.get(place) != listed.get(place):
            kind: Kind = "wrong" if place in listed else "lost"
            said = f"commit {place}: the index has {listed.get(place)}, the topics {there.get(place)}"
            found.append(Finding(kind, said))
    return found


def _check_chain(index: list[Listing]) -> list[Finding]:
    """A chain begins with serial 1: the first chain anywhere, every other one in a new generation."""
    found = []
    generation, serial, end, last = 0, 0, 0, (0, 0)
    for listing in index:
        content, where = listing.content, f"index@{listing.offset}"
        now = (content["generation"], content["serial"], content["previous"])
        if now[1:] != (serial + 1, end) and not (now[1] == 1 and now[0] > generation):
            found.append(
                Finding("wrong", f"{where}: the chain is broken, {now} comes after {(generation, serial, end)}")
            )
        if listing.stamp != (now[0], content["end"], 0):
            found.append(Finding("wrong", f"{where}: stamp {listing.stamp} of a record that ends at {content['end']}"))
        if (now[0], content["end"]) < (generation, end):
            found.append(Finding("out of order", f"{where}: {now} goes back behind {(generation, end)}"))
        for lsn, *_ in content["commits"]:
            if (now[0], lsn) < last or not now[2] <= lsn <= content["end"]:
                found.append(Finding("out of order", f"{where}: commit {lsn} behind {last}, up to {content['end']}"))
            last = (now[0], lsn)
        generation, serial, end = now[0], now[1], content["end"]
    return found


def _written(records: Iterable[Record], index: list[Listing]) -> dict[Place, dict[TableTopic, int]]:
    """What the index should list for each commit and chunk since it begins, by the records in the tables' topics."""
    firsts = {state["id"] for listing in index for state in listing.content["snapshots"] if state["first"]}
    begin = min(((one.content["generation"], one.content["previous"]) for one in index), default=(0, 0))
    seen: dict[Place, dict[TableTopic, set[Any]]] = defaultdict(lambda: defaultdict(set))
    for each in records:
        snapshot = each.transaction.get("snapshot", "")
        if each.stamp is None or each.value is None or each.value.get("op", "m") == "m" or snapshot in firsts:
            continue
        if each.stamp[:2] >= begin:
            source = each.value["source"]
            change = (each.partition, each.offset) if snapshot else (each.stamp.ordinal, each.key_change)
            place = (each.stamp.generation, each.stamp.commit_lsn, snapshot)
            seen[place][f"{source['schema']}.{source['table']}", each.topic].add(change)
    return {place: {table: len(which) for table, which in tables.items()} for place, tables in seen.items()}


def check_transactions(records: Iterable[Record], prefix: str) -> list[Finding]:
    """The transaction that a change names ends at the change's stamp, and is the only one there."""
    ids: dict[tuple[int, int], str] = {}
    found = []
    for each in _of_tables(records, prefix):
        if each.op == "r" or each.stamp is None:
            continue
        name, commit = each.transaction.get("id", ""), each.stamp[:2]
        if name.rpartition(":")[2] != str(commit[1]) or ids.setdefault(commit, name) != name:
            found.append(Finding("wrong", f"{each.where}: transaction {name!r} contradicts its stamp or other records"))
    return found


def check_snapshots(records: Iterable[Record], prefix: str) -> list[Finding]:
    """Each completed snapshot has as many rows per table as it says, and each key once."""
    records = list(records)
    found = []
    for snapshot in snapshots(records, prefix):
        for table, rows in changes(records, prefix).items():
            if table not in snapshot.rows:  # a crash left a part of it, which promises nothing
                continue
            own = [each for each in rows if each.transaction.get("snapshot") == snapshot.id]
            keys = Counter(each.key for each in own if each.key is not None)
            found += [Finding("double", f"snapshot {snapshot.id}: {table} {key}") for key, n in keys.items() if n > 1]
            found += _snapshot_rows(snapshot, table, own)
        empty = [table for table, count in snapshot.rows.items() if count and table not in changes(records, prefix)]
        found += [Finding("lost", f"snapshot {snapshot.id}: no row of {table}") for table in empty]
    return found


def _snapshot_rows(snapshot: Snapshot, table: str, own: list[Record]) -> list[Finding]:
    announced = snapshot.rows.get(table, 0)
    found = []
    if len(own) != announced:
        kind: Kind = "lost" if len(own) < announced else "double"
        found.append(Finding(kind, f"snapshot {snapshot.id}: {table} has {len(own)} rows of {announced}"))
    stamp = (snapshot.generation, snapshot.lsn, 0)
    wrong = [each for each in own if each.op != "r" or not _is_row_of(each, snapshot, stamp)]
    return found + [Finding("wrong", f"{each.where}: not a row of snapshot {stamp}") for each in wrong[:5]]


def _is_row_of(record: Record, snapshot: Snapshot, stamp: Stamp) -> bool:
    if snapshot.incremental:
        return record.stamp is not None and record.stamp > stamp and record.stamp[2] == 0
    return record.stamp == stamp


def _of_tables(records: Iterable[Record], prefix: str) -> list[Record]:
    return [each for each in records if table_of(each, prefix) is not None]
