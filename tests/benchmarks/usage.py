"""What processes use, from proc(5): CPU seconds and memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """User and system seconds of a running process."""
    return sum(_fields(pid)[11:13]) / _TICKS


def cpu_with_children(pid: int) -> float:
    """The same of a server with all its children, those that have ended among them."""
    while True:
        own = _fields(pid)
        living = sum(sum(_fields(child)[11:13]) for child in _children(pid))
        if _fields(pid)[13:15] == own[13:15]:  # else one ended meanwhile, and is in neither of the two
            return (sum(own[11:15]) + living) / _TICKS


def peak_megabytes(pid: int) -> float:
    """The most memory that a running process had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _children(pid: int) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        if folder.name != str(pid) and _fields(int(folder.name))[1] == pid:
            yield int(folder.name)


def _fields(pid: int) -> list[int]:
    """The numbers behind the state, which stands at place 0; zeros for a process that is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return [0] * 20
    return [0, *map(int, text.rpartition(")")[2].split()[1:20])]
