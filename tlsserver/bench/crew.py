"""A load in several processes: each a part of it, on its own thread of control; their tallies are added."""

from __future__ import annotations

import multiprocessing
import signal
from dataclasses import replace
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from tlsserver.bench.addresses import sources
from tlsserver.bench.client import Client
from tlsserver.bench.load import TICK, Load
from tlsserver.bench.tally import Tally
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection as Pipe
    from multiprocessing.process import BaseProcess

    from tlsserver.bench.addresses import Target
    from tlsserver.bench.settings import Settings

# Not fork: a child must have an OpenSSL of its own, not one in use.
_SPAWN = multiprocessing.get_context("spawn")
_STOP = "stop"


class Crew:
    """A load in several processes that begin together; runs once.

    Args:
        settings: Of the whole: concurrency and count are divided.
        target: Where it goes.
        processes: How many.
        watch: Called about ten times a second with the tally so far, without latencies.

    Raises:
        ConfigurationError: There is not a connection for each of them.
    """

    def __init__(
        self, settings: Settings, target: Target, processes: int, watch: Callable[[Tally], None] | None = None
    ) -> None:
        self._parts = divide(settings, processes)
        self._target = target
        self._watch = watch
        self._stopped = False

    def stop(self) -> None:
        """Drop what is in progress, within a tick; for signal handlers."""
        self._stopped = True

    def run(self) -> Tally:
        """Run to the end.

        Returns:
            What came of all of them.
        """
        members = [_start(part, self._target, share, len(self._parts)) for share, part in enumerate(self._parts)]
        pipes = [pipe for _, pipe in members]
        try:
            for pipe in pipes:
                pipe.recv()  # ready
            for pipe in pipes:
                pipe.send("go")
            return self._gather(pipes)
        finally:
            for process, pipe in members:
                pipe.close()  # which ends a member that still runs
                process.join()

    def _gather(self, pipes: list[Pipe]) -> Tally:
        latest = {pipe: Tally() for pipe in pipes}
        running = set(pipes)
        told = False
        while running:
            for pipe in ready(running):
                latest[pipe], is_last = pipe.recv()
                running.difference_update({pipe} if is_last else ())
            if self._stopped and not told:
                told = True
                for pipe in running:
                    pipe.send(_STOP)
            if self._watch is not None:
                self._watch(add(list(latest.values())))
        return add(list(latest.values()))


def ready(pipes: set[Pipe]) -> list[Pipe]:
    """Wait a tick at most for pipes that have something to say."""
    found = set(wait(list(pipes), TICK))
    return [pipe for pipe in pipes if pipe in found]


def divide(settings: Settings, processes: int) -> list[Settings]:
    """Divide concurrency and count among processes as evenly as can be.

    Raises:
        ConfigurationError: One of them would have nothing to do.
    """
    least = min(settings.concurrency, settings.count or settings.concurrency)
    if least < processes:
        raise ConfigurationError(
            f"{processes} processes cannot share {least} connections: give --processes {least} or fewer"
        )
    concurrency = _shares(settings.concurrency, processes)
    counts = _shares(settings.count, processes) if settings.count else [None] * processes
    return [replace(settings, concurrency=own, count=count) for own, count in zip(concurrency, counts, strict=True)]


def add(tallies: list[Tally]) -> Tally:
    """Add tallies that were made at the same time."""
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total


def _shares(whole: int, parts: int) -> list[int]:
    return [whole // parts + (part < whole % parts) for part in range(parts)]


def _start(settings: Settings, target: Target, share: int, shares: int) -> tuple[BaseProcess, Pipe]:
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_work, args=(theirs, settings, target, share, shares), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _work(pipe: Pipe, settings: Settings, target: Target, share: int, shares: int) -> None:
    """Be one of the processes. Ctrl-C reaches all of a terminal's processes: the first one decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch(tally: Tally) -> None:
        pipe.send((tally.summary(), False))
        if pipe.poll():
            load.stop()

    load = Load(settings, target, Client(settings), sources(target, share, shares), watch)
    pipe.send("ready")
    try:
        pipe.recv()
        pipe.send((load.run(), True))
    except (EOFError, BrokenPipeError):  # nobody is interested any more
        return
