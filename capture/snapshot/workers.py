"""The snapshot's worker processes, as their parent sees them: started, given chunks, ended."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from typing import Any, Final, NamedTuple

from capture.kafka.cluster import Cluster
from capture.kafka.producer import TransactionalProducer
from capture.postgres.replication import Connection, Server
from capture.snapshot.copying import Blueprint, Chunk, Copied, CopiedChunk, Copier
from capture.snapshot.locks import Locks, reader_at
from schemas.model.errors import OrdertapError, UnavailableError

_START_SECONDS: Final = 60.0
_QUEUE_KILOBYTES: Final = 32_768
"""How many kB of records may wait for Kafka in one worker. librdkafka's default would not bound memory."""


class Setup(NamedTuple):
    """The first message to a worker: where to read, at which snapshot, and where to write."""

    server: Server
    locks: Locks
    exported: str
    bootstrap_servers: str
    kafka: Mapping[str, Any]
    transactional_id: str
    timeout: float

    def cluster(self) -> Cluster:
        """Kafka, with a queue that keeps memory small."""
        largest = int(self.kafka.get("message.max.bytes", 0)) // 1024
        queue = str(max(_QUEUE_KILOBYTES, 2 * largest))  # a record larger than the queue would never fit
        return Cluster(self.bootstrap_servers, {"queue.buffering.max.kbytes": queue, **self.kafka})

    def producer(self) -> TransactionalProducer:
        """The worker's own producer. Making it fences older ones."""
        return TransactionalProducer(self.cluster(), self.transactional_id)


class Ready(NamedTuple):
    """The worker's answer: it has fenced older producers of its id, sees the snapshot and holds the tables."""


class Begin(NamedTuple):
    """The second message: what to read."""

    blueprints: tuple[Blueprint, ...]
    copied: Copied


class Done(NamedTuple):
    """A group of chunks (its number) is durable in Kafka; what came of each."""

    number: int
    outcomes: list[CopiedChunk]


class Failed(NamedTuple):
    """The worker gave up."""

    message: str
    hint: str
    kind: type[OrdertapError]


def worker_ids(transactional_id: str, count: int) -> list[str]:
    """The transactional ids of the workers that go with this producer's."""
    return [f"{transactional_id}-snapshot-{number}" for number in range(1, count + 1)]


def fence(cluster: Cluster, transactional_id: str, count: int, timeout: float = 30.0) -> list[TransactionalProducer]:
    """Aborts what workers of an abandoned snapshot have open, and shuts out those that still live somewhere. Returns
    the producers that did it, in the workers' stead."""
    return [TransactionalProducer(cluster, worker, timeout) for worker in worker_ids(transactional_id, count)]


class _Worker:
    def __init__(self, name: str, setup: Setup) -> None:
        self.name = name
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            command = [sys.executable, "-m", "capture.snapshot.worker", str(fd)]
            self.process = subprocess.Popen(command, pass_fds=[fd], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.connection = Pipe(ours.detach())
        self.send(setup)

    def send(self, message: Any) -> None:
        try:
            self.connection.send(message)
        except OSError:  # it has ended: it may have said why
            self.receive()

    def receive(self) -> Any:
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            code = self.process.wait()
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise UnavailableError(
                f"snapshot worker {self.name} (process {self.process.pid}) {how}",
                "look at the lines above and at the memory of the machine; capture begins the snapshot again",
            ) from None
        if isinstance(answer, Failed):
            raise answer.kind(f"snapshot worker {self.name}: {answer.message}", answer.hint)
        return answer

    def end(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()


class OwnProcess:
    """The same interface without workers, for a small snapshot: this process copies."""

    in_order: Final = True
    """Whether chunks are read one after the other."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._reader: Connection | None = None

    def __enter__(self) -> OwnProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.close()

    def await_ready(self, stopping: Callable[[], object]) -> None:
        """See Workers."""
        self._producer = self._setup.producer()
        self._reader = reader_at(self._setup.server, self._setup.locks, self._setup.exported)
        stopping()

    def copy(
        self,
        blueprints: Sequence[Blueprint],
        copied: Copied,
        groups: Sequence[Sequence[Chunk]],
        stopping: Callable[[], object],
    ) -> Iterator[tuple[Chunk, CopiedChunk]]:
        """See Workers."""
        assert self._reader is not None  # noqa: S101  await_ready() came before
        copier = Copier(self._reader, self._producer, self._setup.timeout, blueprints, copied, stopping)
        for group in groups:
            yield from zip(group, copier.copy(group), strict=True)
            stopping()


class Workers:
    """A context manager; the processes end with it."""

    in_order: Final = False

    def __init__(self, setups: Sequence[Setup]) -> None:
        self._setups = setups
        self._workers: list[_Worker] = []

    def __enter__(self) -> Workers:
        for number, setup in enumerate(self._setups, 1):
            self._workers.append(_Worker(str(number), setup))
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()

    def await_ready(self, stopping: Callable[[], object]) -> None:
        """Waits until all workers see the snapshot and hold the tables. `stopping` is called meanwhile and may
        raise."""
        deadline = time.monotonic() + _START_SECONDS
        waiting = list(self._workers)
        while waiting:
            for worker in self._answers(waiting):
                worker.receive()
                waiting.remove(worker)
            stopping()
            if time.monotonic() > deadline:
                raise UnavailableError(f"snapshot worker {waiting[0].name} does not start", "check the broker")

    def copy(
        self,
        blueprints: Sequence[Blueprint],
        copied: Copied,
        groups: Sequence[Sequence[Chunk]],
        stopping: Callable[[], object],
    ) -> Iterator[tuple[Chunk, CopiedChunk]]:
        """Copies all chunks, each group in one Kafka transaction. Yields each once it is durable. Raises errors of any
        worker."""
        numbers = iter(range(len(groups)))
        busy: list[_Worker] = []

        def give(worker: _Worker) -> None:
            number = next(numbers, None)
            if number is not None:
                worker.send((number, groups[number]))
                busy.append(worker)

        for worker in self._workers:
            worker.send(Begin(tuple(blueprints), copied))
            give(worker)
        while busy:
            for worker in self._answers(busy):
                done: Done = worker.receive()
                busy.remove(worker)
                give(worker)
                yield from zip(groups[done.number], done.outcomes, strict=True)
            stopping()

    @staticmethod
    def _answers(workers: Sequence[_Worker]) -> list[_Worker]:
        ready = wait([worker.connection for worker in workers], 0.5)
        return [worker for worker in workers if worker.connection in ready]
