"""All checks of the proof in one call, and their result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.proof.content import check_content, replay, shop_tables
from tests.proof.records import Listing, Record, changes, read_index, read_topics
from tests.proof.rules import Finding, check_index, check_once, check_order, check_snapshots, check_transactions
from tests.proof.wal import Logged, Witness


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the proof saw: how many changes, and each broken promise."""

    changes: int
    findings: tuple[Finding, ...]

    def count(self, kind: str) -> int:
        """How many findings have a kind."""
        return sum(finding.kind == kind for finding in self.findings)

    def __str__(self) -> str:
        lines = [f"{finding.kind}: {finding.text}" for finding in self.findings[:40]]
        return "\n".join([f"{self.changes} changes, {len(self.findings)} findings", *lines])


def judge_log(records: Sequence[Record], index: Sequence[Listing], prefix: str, log: Sequence[Logged]) -> list[Finding]:
    """The checks that need no database."""
    return [
        *check_order(records, prefix),
        *check_once(records, prefix, log),
        *check_transactions(records, prefix),
        *check_index(records, index),
        *check_snapshots(records, prefix),
    ]


def judge(
    witness: Witness,
    bootstrap_servers: str,
    registry_url: str,
    prefix: str,
    tables: Iterable[str],
    former: Iterable[str] = (),
) -> Verdict:
    """Reads topics, log and shop, which must be at rest, and runs all checks on these tables. `former`: tables that the
    shop had once, which are compared with the log alone."""
    present = set(tables)
    wanted = present.union(former)
    log = [change for change in witness.read() if change.table in wanted]
    records = read_topics(bootstrap_servers, registry_url, prefix)
    foreign = sorted(changes(records, prefix).keys() - wanted)
    findings = [Finding("wrong", f"a topic for {table}, which is not captured") for table in foreign]
    findings += judge_log(records, read_index(bootstrap_servers, prefix), prefix, log)
    findings += check_content(replay(records, prefix), shop_tables(witness.dsn, sorted(present)))
    rows = sum(len(own) for own in changes(records, prefix).values())
    if not rows:
        findings.append(Finding("lost", f"nothing in the topics of {prefix}"))
    return Verdict(len(log), tuple(findings))
