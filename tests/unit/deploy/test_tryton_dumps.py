"""Dumps in Tryton's cache: what nobody uses any more goes."""

from __future__ import annotations

import os
import time
from pathlib import Path

from deploy.tryton.environment import clear


def test_dumps_that_nobody_has_used_for_a_month_go(tmp_path: Path) -> None:
    days = {"dump-a": 1, "dump-a-b-16": 29, "dump-a-c-16": 31, "dump-a-c-16.4711": 31, "installed": 31}
    for name, unused in days.items():
        file = tmp_path / name
        file.touch()
        when = time.time() - unused * 86_400
        os.utime(file, (when, when))
    clear(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["dump-a", "dump-a-b-16", "installed"]
