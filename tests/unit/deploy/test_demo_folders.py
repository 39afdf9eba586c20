"""Folders of demos: those of killed ones go at the next start, those of running ones and of others stay."""

from __future__ import annotations

import fcntl
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

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


def test_two_demos_that_start_at_once_leave_each_other_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one looks when our file is there and not locked yet."""
    ours, other = (tmp_path / f"{demo.PREFIX}{number}" for number in range(2))
    ours.mkdir()
    other.mkdir()
    lock, seen = fcntl.flock, list[list[str]]()

    def looked_at(file: Any, how: int) -> None:
        if not seen:
            seen.append([one.name for one in ours.iterdir()])
            demo._clear_others(other, stack)
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", looked_at)
    with ExitStack() as stack:
        demo._clear_others(ours, stack)
        assert len(seen[0]) == 1, "the file was there"
        assert [(folder / demo.LOCK).exists() for folder in (ours, other)] == [True, True]


def test_a_folder_that_is_still_written_to_keeps_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next demo takes it away: it looks for locks that nobody holds."""
    folder = tmp_path / f"{demo.PREFIX}0"
    (folder / "tryton").mkdir(parents=True)
    (folder / "orders.log").touch()
    (folder / demo.LOCK).touch()
    with monkeypatch.context() as patched:
        patched.setattr(demo.shutil, "rmtree", lambda *_, **__: None)  # as if all came again at once
        demo._take_away(folder)
    assert sorted(one.name for one in folder.iterdir()) == [demo.LOCK, "tryton"]
    demo._take_away(folder)
    assert not folder.exists()


@pytest.mark.parametrize("kept", ["full", "full/file", "full/file/under"])
def test_a_folder_that_cannot_be_kept_is_refused_with_a_next_step(tmp_path: Path, kept: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(SystemExit) as refused:
        demo._folder(tmp_path / kept)
    assert f"{tmp_path / kept}" in str(refused.value)
    assert "next: name a new folder" in str(refused.value)
