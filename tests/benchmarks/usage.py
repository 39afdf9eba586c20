"""Resources that processes use, from proc(5): CPU seconds and memory."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """User and system seconds of a running process."""
    return sum(_fields(pid)[11:13]) / _TICKS


def cpu_with_children(pid: int) -> float:
    """The same for a server with all its children, including those that have ended."""
    while True:
        own = _fields(pid)
        living = sum(sum(_fields(child)[11:13]) for child in children(pid))
        if _fields(pid)[13:15] == own[13:15]:  # a process ended meanwhile, and is in neither of the two
            return (sum(own[11:15]) + living) / _TICKS


def peak_megabytes(pid: int) -> float:
    """The peak memory of a process; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return int((status.partition("VmHWM:")[2].split() or ["0"])[0]) / 1024


def children(pid: int) -> list[int]:
    """Running processes that it has started."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _fields(pid: int) -> list[int]:
    """The numbers after the state, which is at place 0; zeros if the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return [0] * 20
    return [0, *map(int, text.rpartition(")")[2].split()[1:20])]
