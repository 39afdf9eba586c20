"""Folders of demos: those of killed ones go at the next start, those of running ones and of others stay."""

from __future__ import annotations

import fcntl
from contextlib import ExitStack
from pathlib import Path

from deploy import demo


def test_the_next_demo_takes_away_what_a_killed_one_left(tmp_path: Path) -> None:
    killed, running, ours, starting = (tmp_path / f"{demo.PREFIX}{number}" for number in range(4))
    for folder in (killed, running, ours, starting):
        folder.mkdir()
    (killed / demo.LOCK).touch()
    with ExitStack() as other, ExitStack() as stack:
        fcntl.flock(other.enter_context((running / demo.LOCK).open("w")), fcntl.LOCK_EX)
        demo._clear_others(ours, stack)
        assert [folder.exists() for folder in (killed, running, ours, starting)] == [False, True, True, True]
