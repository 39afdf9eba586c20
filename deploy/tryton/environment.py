"""Tryton's own Python environment and a dump of a company's data. Both are made once and kept in the cache folder."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deploy.embedded import PartError, Postgres, cache_folder, die_with_parent
from deploy.tryton.provision import ADMIN_PASSWORD, MODULES

PROVISION = Path(__file__).with_name("provision.py")
PACKAGES = (
    "trytond[postgresql]==8.2.1",
    "proteus==8.2.0",
    "psycopg[binary]==3.3.9",
    "gunicorn==27.0.1",
    *(f"trytond_{module}==8.2.0" for module in MODULES),
)
POSTGRES = 16  # its dump can be read by this version and later ones
DATABASE = "tryton"
_UNUSED = timedelta(days=30)


@dataclass(frozen=True)
class Environment:
    """A folder with Python and Tryton in it (`venv`), and the dump of a company's data."""

    folder: Path
    dump: Path

    def program(self, name: str) -> str:
        """Path of one of Tryton's programs, or of its Python."""
        return str(self.folder / "venv/bin" / name)

    def restore(self, postgres: Postgres, database: str, dump: Path | None = None) -> None:
        """Makes a database from the company's data, or from another dump."""
        postgres.create_database(database)
        data = dump or self.dump
        data.touch()  # marks it as used: `keep` deletes others
        _run(
            "restoring Tryton's data",
            [str(postgres.bin / "pg_restore"), "-d", postgres.dsn(database), "--no-owner", str(data)],
        )
        postgres.psql("ANALYZE", database)

    def later(self, postgres: Postgres, *made_by: str) -> Path:
        """Path of the dump that this code makes on top of the company's data. Only a server of the same version is sure
        to read it."""
        return self.dump.with_name(f"{self.dump.name}-{_fingerprint(*made_by)}-{postgres.version}")

    def keep(self, postgres: Postgres, database: str, dump: Path) -> None:
        """Dumps a database that is at rest. If several processes do this at once, one dump is kept. Dumps that nobody
        has used for a month are deleted: those of other code, and what killed processes left behind."""
        clear(dump.parent)
        part = dump.with_name(f"{dump.name}.{os.getpid()}")
        _run("Tryton's dump", [str(postgres.bin / "pg_dump"), "-Fc", "-f", str(part), postgres.dsn(database)])
        part.rename(dump)


def environment(say: Callable[[str], None] = print) -> Environment:
    """The environment in the cache folder, made if it is missing; PartError if that fails.

    Other packages get a folder of their own. Other data get a dump of their own, and so does each year, because
    accounts are open for one year.
    """
    folder = cache_folder() / "erp" / f"tryton-{_fingerprint(*PACKAGES, sys.version)}"
    folder.parent.mkdir(exist_ok=True)
    found = Environment(folder, folder / f"dump-{_fingerprint(PROVISION.read_text(), str(datetime.now(UTC).year))}")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits for what the first makes
        if not (folder / "installed").exists():
            say("installing Tryton from PyPI, about 20 s, once")
            _install(folder)
        if not found.dump.exists():
            say("setting up a company in Tryton, about 2 minutes, once")
            _make_dump(found)
    return found


def clear(folder: Path) -> None:
    """Deletes the dumps in a folder that nobody has used for a month, finished or not."""
    before = (datetime.now(UTC) - _UNUSED).timestamp()
    for dump in folder.glob("dump-*"):
        with suppress(FileNotFoundError):  # another process has deleted it
            if dump.stat().st_mtime < before:
                dump.unlink()


def write_settings(folder: Path, postgres: Postgres) -> Path:
    """Writes trytond's settings file: its databases are on this server, and buttons do their work at once."""
    file = folder / "trytond.conf"
    file.write_text(
        f"[database]\nuri = postgresql://postgres@127.0.0.1:{postgres.port}/\nlanguage = en\n[queue]\nworker = False\n"
    )
    return file


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _install(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _run("making Tryton's environment", [sys.executable, "-m", "venv", str(folder / "venv")])
    pip = [str(folder / "venv/bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run("installing Tryton", [*pip, *PACKAGES], "check that PyPI can be reached, then run this again")
    (folder / "installed").touch()


def _make_dump(found: Environment) -> None:
    """Makes the dump on a server of its own. One call of `trytond-admin` is one transaction. Without ANALYZE in
    between, PostgreSQL takes about a second for each look-up in it."""
    with tempfile.TemporaryDirectory(prefix="ordertap-tryton-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        quick = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "jit": "off"}
        with Postgres(folder / "postgres", POSTGRES, quick) as postgres:
            url = postgres.create_database(DATABASE)
            settings = write_settings(folder, postgres)
            password = folder / "password"
            password.write_text(ADMIN_PASSWORD)
            admin = [found.program("trytond-admin"), "-c", str(settings), "-d", DATABASE]
            variables = {"TRYTONPASSFILE": str(password), "TRYTOND_CONFIG": str(settings), "TRYTOND_DATABASE_URI": url}
            _run("Tryton's set-up", [*admin, "-u", "ir", "res", "--email", "admin@example.org"], **variables)
            postgres.psql("ANALYZE", DATABASE)
            _run("Tryton's modules", [*admin, "-u", *MODULES, "--activate-dependencies"], **variables)
            postgres.psql("ANALYZE", DATABASE)
            _run("Tryton's data", [found.program("python"), str(PROVISION), url, str(settings)], **variables)
            found.keep(postgres, DATABASE, found.dump)


def _run(what: str, command: list[str], step: str = "see above", **variables: str) -> None:
    """Runs a program to its end. PartError with its last lines if it fails."""
    ended = subprocess.run(
        command,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        preexec_fn=die_with_parent(),
    )
    if ended.returncode:
        last = "\n".join(ended.stdout.splitlines()[-12:])
        raise PartError(f"{what} failed:\n{last}\n  next: {step}")
