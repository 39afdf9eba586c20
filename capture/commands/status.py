"""`capture status`: where capture stands, as PostgreSQL and Kafka know it. It works from any machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from capture.checks import check_slot
from capture.demand import Demand
from capture.kafka import broker
from capture.metrics import FAILS_AGAIN
from capture.plan import Plan
from capture.position import InitialSnapshot, Position
from capture.postgres import catalogue
from capture.postgres.replication import (
    APPLICATION,
    LEAD,
    Connection,
    Slot,
    database_errors,
    leadership_key,
    slot_state,
)
from capture.snapshot.modes import unfinished
from schemas.model.errors import OrdertapError
from schemas.process.service import ask_ready


class Look(NamedTuple):
    """What was seen at one moment (seconds of the monotonic clock). None: missing, or its server does not answer."""

    at: float
    position: Position | None
    slot: Slot | None
    records: dict[str, int]


def status(
    plan: Plan, seconds: float, health: tuple[str, int] = ("", 0), sleep: Callable[[float], object] = time.sleep
) -> dict[str, Any]:
    """Looks twice, `seconds` apart. Returns JSON's data, in bytes and seconds.

    `health`: where a capture's own server listens. `problems` lists what does not answer, a lost slot, and a start that
    fails again and again. `running` is None if PostgreSQL does not answer.
    """
    problems: list[str] = []
    told = ask_ready(*health)
    connection = _tried(plan.server.ask, problems)
    try:
        captured = None if connection is None else _tried(lambda: _captured(connection, plan), problems)
        published: list[str] = captured or []
        first = _look(connection, plan, published, problems)
        if not problems and seconds > 0:
            sleep(seconds)
            second = _look(connection, plan, published, problems)
        else:
            second = first
        seen = [] if connection is None else sessions(connection, plan.server.user, plan.options.slot)
        position = second.position
        if position is not None and not problems and not unfinished(position):
            _tried(lambda: check_slot(position, second.slot, plan.options.slot), problems)
        if told is not None and FAILS_AGAIN in told[1]:
            problems.append(told[1])
        named = [{"pid": pid, "address": address, "role": role} for pid, address, role in seen]
        shown = _told(plan, first, second, named, problems, connection is not None)
        return shown | {"health": None if told is None else {"ready": told[0], "reason": told[1]}}
    finally:
        if connection is not None:
            connection.close()


def _tried(call: Callable[[], Any], problems: list[str]) -> Any:
    try:
        return call()
    except OrdertapError as error:
        problems.append(f"{error.message}; {error.hint}" if error.hint else error.message)
        return None


def _captured(connection: Connection, plan: Plan) -> list[str]:
    published = [one.relation.table for one in catalogue.published_tables(connection, plan.publication)]
    return [table for table in published if plan.selection.table(table)]


def _look(connection: Connection, plan: Plan, tables: list[str], problems: list[str]) -> Look:
    def kafka() -> tuple[Position | None, dict[str, int]]:
        position = plan.position(settled=False)
        counts = plan.cluster.partitions()
        parked = () if position is None else position.parked
        named, _ = plan.topics.of_each(table for table in tables if table not in parked)  # a table may have no topic
        topics = {topic: counts[topic] for topic in named.values() if topic in counts}
        return position, broker.ends(plan.cluster, topics)

    position, records = _tried(kafka, problems) or (None, {})
    slot = None if connection is None else _tried(lambda: slot_state(connection, plan.options.slot), problems)
    return Look(time.monotonic(), position, slot, records)


def sessions(connection: Connection, user: str, slot: str) -> list[tuple[int, str, str]]:
    """(process, address, role) of the slot's sessions that `user` may see: leader, reader, standby.

    The leader holds the lock, and a standby's only statement asks for it. Sessions of other captures and of snapshots
    are left out. A lock on a bigint has its halves in classid and objid. Source: PostgreSQL manual, "pg_locks".
    """
    statement = """
        SELECT * FROM (
            SELECT a.pid, host(a.client_addr), CASE
                WHEN EXISTS (
                    SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.granted
                    AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended(%(key)s, 0)) THEN 'leader'
                WHEN a.pid = (SELECT active_pid FROM pg_replication_slots WHERE slot_name = %(slot)s) THEN 'reader'
                WHEN a.query = %(waits)s THEN 'standby' END AS role
            FROM pg_stat_activity a
            WHERE a.datname = current_database() AND a.usename = %(user)s AND a.application_name = %(application)s
            AND a.pid <> pg_backend_pid() ORDER BY a.backend_start) seen
        WHERE role IS NOT NULL"""
    key = leadership_key(slot)
    with database_errors("looking at the sessions"), connection.cursor() as cursor:
        waits = cursor.mogrify(LEAD, [key]).decode()
        cursor.execute(statement, {"key": key, "slot": slot, "waits": waits, "user": user, "application": APPLICATION})
        found: list[tuple[int, str, str]] = cursor.fetchall()
        return found


def _told(
    plan: Plan, first: Look, second: Look, named: list[dict[str, Any]], problems: list[str], answers: bool
) -> dict[str, Any]:
    position, slot = second.position, second.slot
    running = slot is not None and slot.active_pid is not None
    elapsed = second.at - first.at
    lag = None if slot is None else _lag_bytes(position, slot)
    snapshot = position.snapshot if position else None
    return {
        "running": running or any(session["role"] == "leader" for session in named) if answers else None,
        "sessions": named,
        "position": None if position is None else {"lsn": str(position.end_lsn), "generation": position.generation},
        "lag_bytes": lag,
        "lag_seconds": 0.0 if lag == 0 and running else _lag_seconds(position),
        "slot": None if slot is None else _slot(plan, slot),
        "rate": None if elapsed <= 0 else _rate(first, second, elapsed),
        "snapshot": None if snapshot is None else _snapshot(snapshot, len(second.records)),
        "on_demand": None if position is None else _on_demand(position.demand),
        "parked": [] if position is None else list(position.parked),
        "tables": {topic: {"end_offset": end} for topic, end in second.records.items()},
        "problems": problems,
    }


def _lag_bytes(position: Position | None, slot: Slot) -> int | None:
    """The log that is not in Kafka. The server may be ahead of the position in an idle shop: what it may forget is in
    Kafka, or not for us."""
    reached = max((lsn for lsn in (position and position.end_lsn, slot.confirmed_flush_lsn) if lsn), default=None)
    return None if reached is None else max(0, slot.current_lsn - reached)


def _lag_seconds(position: Position | None) -> float | None:
    """The lag is at most the age of the last heartbeat in Kafka: all that was committed before it is there."""
    if position is None or position.heartbeat is None or not position.heartbeat.at_ms:
        return None
    return round(max(0.0, time.time() - position.heartbeat.at_ms / 1000), 1)


def _slot(plan: Plan, slot: Slot) -> dict[str, Any]:
    return {
        "name": plan.options.slot,
        "active_pid": slot.active_pid,
        "confirmed_lsn": str(slot.confirmed_flush_lsn),
        "wal_status": slot.wal_status,
        "wal_held_bytes": slot.held_bytes,
        "wal_budget_bytes": slot.safe_bytes,
        "invalidation_reason": slot.invalidation_reason,
        "inactive_since": slot.inactive_since,
        "conflicting": slot.conflicting,
        "spilled_transactions": slot.spilled_transactions,
        "spills": slot.spills,
        "spilled_bytes": slot.spilled_bytes,
    }


def _snapshot(snapshot: InitialSnapshot, tables: int) -> dict[str, Any]:
    done = tables if snapshot.state == "completed" else len(snapshot.tables_done)
    return {"id": snapshot.id, "state": snapshot.state, "tables": tables, "tables_done": done}


def _on_demand(demand: Demand) -> dict[str, Any] | None:
    """The snapshots on demand, without the keys that they have reached: a key is a row's value."""
    if not demand.requests:
        return None
    waiting = [
        {"id": one.id, "tables_left": [table[0] for table in one.tables], "rows": dict(one.rows)}
        for one in demand.requests
    ]
    return {"paused": demand.paused, "snapshots": waiting}


def _rate(first: Look, second: Look, elapsed: float) -> dict[str, float]:
    records = sum(second.records.values()) - sum(first.records.values())
    log = 0 if first.position is None or second.position is None else second.position.end_lsn - first.position.end_lsn
    return {"records_per_second": round(records / elapsed, 1), "log_bytes_per_second": round(log / elapsed)}


def lines(told: dict[str, Any]) -> Iterator[str]:
    """The status in lines for people."""
    yield "running    " + {True: "yes", False: "no", None: "not known, see below"}[told["running"]]
    yield from _health_lines(told["health"])
    for session in told["sessions"]:
        yield f"session    {session['role']}, process {session['pid']} of the server, from {session['address']}"
    position = told["position"]
    missing = "not known, see below" if told["problems"] else "none yet: capture has not run"
    where = f"{position['lsn']}, generation {position['generation']}" if position else missing
    yield f"position   {where}"
    yield from _lag_lines(told)
    yield from _slot_lines(told["slot"], "see below" if told["problems"] else "none")
    if told["rate"]:
        rate = told["rate"]
        yield f"rate       {rate['records_per_second']} records/s, {size(rate['log_bytes_per_second'])}/s of log"
    if told["snapshot"]:
        snapshot = told["snapshot"]
        of_all = f", {snapshot['tables_done']} of {snapshot['tables']} tables" if snapshot["tables"] else ""
        yield f"snapshot   {snapshot['state']}{of_all}"
    if told["on_demand"]:
        for one in told["on_demand"]["snapshots"]:
            state = "paused" if told["on_demand"]["paused"] else "running"
            yield f"on demand  {one['id']} {state}: {sum(one['rows'].values())} rows, {_list(one['tables_left'])} left"
    for table in told["parked"]:
        yield f"parked     {table} is not written; capture signal snapshot {table} brings it back"
    for topic, table in told["tables"].items():
        yield f"topic      {topic}: end offset {table['end_offset']}"
    for problem in told["problems"]:
        yield f"problem    {problem}"


def _health_lines(health: dict[str, Any] | None) -> Iterator[str]:
    if health is not None:
        yield f"health     {'ready' if health['ready'] else 'not ready'}: {health['reason']}"


def _lag_lines(told: dict[str, Any]) -> Iterator[str]:
    lags = [] if told["lag_bytes"] is None else [size(told["lag_bytes"])]
    lags += [] if told["lag_seconds"] is None else [f"at most {told['lag_seconds']} s"]
    if lags:
        yield f"lag        {', '.join(lags)}"


def _slot_lines(slot: dict[str, Any] | None, absent: str) -> Iterator[str]:
    yield "slot       " + (f"{slot['name']} at {slot['confirmed_lsn']}, {slot['wal_status']}" if slot else absent)
    if slot:
        budget = slot["wal_budget_bytes"]
        left = "no limit is set" if budget is None else f"{size(budget)} until the server invalidates the slot"
        lost = slot["wal_status"] == "lost"
        yield "WAL held   " + ("none" if lost else f"{size(slot['wal_held_bytes'] or 0)}; {left}")
        if slot["inactive_since"] and slot["active_pid"] is None:
            yield f"unread     since {slot['inactive_since']}"
        if slot["spilled_bytes"]:
            spilled = f"{size(slot['spilled_bytes'])} of {slot['spilled_transactions']} transactions"
            yield f"spilled    {spilled} to the server's disk: they were larger than logical_decoding_work_mem"
        if slot["conflicting"]:
            yield "conflict   recovery on this standby removed rows that the slot needs"


def _list(names: list[str]) -> str:
    return ", ".join(names) or "nothing"


def size(count: float) -> str:
    """Bytes for people: 1536 → 1.5 kB (of 1024)."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"
