"""A program: pauses in reading, writing and shutting down, made by ciphers that pause (test_any_engine_ciphers.py).

It is a process of its own because the ciphers are preferred process-wide, if only while the server's context is made.
Prints one line for each scenario: its name and "ok", or the last line of what went wrong.

`python -m support.paused_io VERSION CERTIFICATE KEY CA`
"""

from __future__ import annotations

import random
import socket
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import helpers_server
from helpers_server import House, make_context

import engine_shim
from support import leaks
from support.certificates import Identity
from tlsserver import service
from tlsserver.state import State
from tlsserver.testing import AT_ONCE, HELD, SIGNALLED, Change, Kind, Script, ScriptedProvider

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsserver import TLSContext

# More than one record (16 KiB), and not a multiple of it.
LONG = random.Random(1).randbytes(50_000)


def only_connection(house: House) -> Any:
    """Give the server's end of the only connection."""
    (driver,) = house.service._hub.drivers
    return driver.connection


def held(scripted: ScriptedProvider, house: House, count: int = 1) -> None:
    """Turn until so many operations wait."""
    house.until(lambda: len(scripted.waiting()) == count)
    house.until(lambda: house.statistics.parked_now == count)


def paused_read(scripted: ScriptedProvider, house: House) -> None:
    """A read pauses; meanwhile nothing reaches the protocol, and others are served."""
    client, other = house.connected(), house.connected()
    scripted.script(HELD, kind=Kind.DECRYPT)
    client.send(b"first")
    held(scripted, house)
    client.send(b"second")
    other.send(b"other")
    house.until(lambda: other.received == b"OTHER")
    assert client.received == b""
    scripted.complete()
    house.until(lambda: client.received == b"FIRSTSECOND")


def paused_write(scripted: ScriptedProvider, house: House) -> None:
    """A write pauses, and what is written meanwhile comes behind it."""
    client = house.connected()
    scripted.script(HELD, kind=Kind.ENCRYPT)
    client.send(b"first")
    held(scripted, house)
    only_connection(house).write(b" unasked", house.reactor.time())
    client.send(b" second")
    house.quiet()
    assert client.received == b""
    scripted.complete()
    house.until(lambda: len(client.received) == len("first unasked second"))
    assert client.received == b"FIRST unasked SECOND"


def paused_shutdown(scripted: ScriptedProvider, house: House) -> None:
    """The server's close_notify pauses; the client gets it all the same."""
    client = house.connected()
    scripted.script(HELD, kind=Kind.ENCRYPT)
    connection = only_connection(house)
    connection.close()
    held(scripted, house)
    assert connection.state is State.CLOSING_PARKED
    assert not client.is_ended
    scripted.complete()
    house.until(lambda: client.is_ended)
    client.say_goodbye()
    house.until(house.is_empty)


def failed_read(scripted: ScriptedProvider, house: House) -> None:
    """A cipher that fails ends its connection and no other."""
    client, other = house.connected(), house.connected()
    scripted.script(HELD, kind=Kind.DECRYPT)
    client.send(b"lost")
    held(scripted, house)
    scripted.fail()
    house.until(lambda: client.is_cut or client.error)
    other.send(b"other")
    house.until(lambda: other.received == b"OTHER")


def failed_write(scripted: ScriptedProvider, house: House) -> None:
    """The same when it writes."""
    client = house.connected()
    scripted.script(HELD, kind=Kind.ENCRYPT)
    client.send(b"lost")
    held(scripted, house)
    scripted.fail()
    house.until(lambda: client.is_cut or client.error)
    house.until(house.is_empty)


def left_in_read(scripted: ScriptedProvider, house: House) -> None:
    """A client resets while its read is paused: the connection drains until the operation ends."""
    leave(scripted, house, Kind.DECRYPT)


def left_in_write(scripted: ScriptedProvider, house: House) -> None:
    """The same while the server writes."""
    leave(scripted, house, Kind.ENCRYPT)


def leave(scripted: ScriptedProvider, house: House, kind: Kind) -> None:
    """Reset while an operation is paused, for as long as the test wants."""
    client = house.connected()
    scripted.script(HELD, kind=kind)
    client.send(b"never answered")
    held(scripted, house)
    client.reset()
    house.clients.remove(client)
    house.until(lambda: house.statistics.draining_now == 1)
    other = house.connected()
    other.send(b"other")
    house.until(lambda: other.received == b"OTHER")
    assert house.statistics.draining_now == 1
    scripted.release_all()
    house.until(lambda: house.statistics.draining_now == 0)
    other.close()
    house.clients.remove(other)
    house.until(house.is_empty)


def left_without_goodbye(scripted: ScriptedProvider, house: House) -> None:
    """OpenSSL answers the end of the stream with an alert, and that pauses, with the error on its queue already."""
    client = house.connected()
    scripted.script(HELD, kind=Kind.ENCRYPT)
    client.socket.shutdown(socket.SHUT_WR)
    held(scripted, house)
    scripted.release_all()
    house.until(house.is_empty)


def stream(scripted: ScriptedProvider, house: House) -> None:
    """Every record pauses, in every way that there is, in both directions: no byte is lost, doubled or moved."""
    client = house.connected()
    ways = [
        SIGNALLED,
        Script(told=False, pauses=3),
        Script(told=False, false_wakes=2),
        Script(told=False, fds=3, false_wakes=1),
        Script(told=False, fds=0),
        Script(told=False, pauses=3, change=Change.RENEW),
        Script(told=False, pauses=3, change=Change.REUSE),
        AT_ONCE,
    ]
    order = random.Random(2)
    for kind in (Kind.ENCRYPT, Kind.DECRYPT):
        scripted.script(*order.choices(ways, k=40), kind=kind)
        scripted.default(SIGNALLED, kind)
    sent = b""
    for size in (1, 16_384, 16_385, 50_000):
        client.send(LONG[:size])
        sent += LONG[:size]
        expected = len(sent)
        house.until(lambda expected=expected: len(client.received) >= expected)  # type: ignore[misc]
    assert client.received == sent.upper()
    for kind in (Kind.ENCRYPT, Kind.DECRYPT):
        scripted.default(AT_ONCE, kind)


def key_and_ciphers(scripted: ScriptedProvider, house: House) -> None:
    """The whole life of a connection, with a pause in each of its operations."""
    for kind in Kind:
        scripted.default(SIGNALLED, kind)
    client = house.connected()
    client.send(b"ping")
    house.until(lambda: client.received == b"PING")
    client.say_goodbye()
    house.until(lambda: client.is_ended)
    client.close()
    house.clients.remove(client)
    house.until(house.is_empty)
    counts = scripted.counts()
    # One signature; at least a Finished, a record of data and a goodbye in each direction.
    assert counts.completed == counts.started >= 7, counts
    assert counts.pauses == counts.completed, counts


def stop(scripted: ScriptedProvider, house: House) -> None:
    """The server stops while a write is paused: the answer still arrives, then the goodbye."""
    client = house.connected()
    scripted.script(HELD, kind=Kind.ENCRYPT)
    client.send(b"last")
    held(scripted, house)
    house.service.begin_stop(30)
    house.quiet()
    scripted.complete()
    house.until(lambda: client.is_ended)
    assert client.received == b"LAST"


SCENARIOS: dict[str, Callable[[ScriptedProvider, House], None]] = {
    scenario.__name__: scenario
    for scenario in (
        paused_read,
        paused_write,
        paused_shutdown,
        failed_read,
        failed_write,
        left_in_read,
        left_in_write,
        left_without_goodbye,
        stream,
        key_and_ciphers,
        stop,
    )
}


def jobs_alive() -> int:
    """Count the jobs that have begun and not ended."""
    numbers = engine_shim.counters()
    return numbers.jobs_started - numbers.jobs_finished


def run(name: str, scripted: ScriptedProvider, identity: Identity, version: str) -> None:
    """Play one scenario with a server of its own, which leaves nothing behind."""

    def with_ciphers(identity: Identity, engine: engine_shim.Engine | None = None, **options: Any) -> TLSContext:
        with scripted.ciphers.prefer():
            return make_context(identity, engine, async_io=True, **options)

    scripted.reset()
    before, alive, jobs = leaks.holdings(), scripted.counts().alive, jobs_alive()
    helpers_server.make_context = with_ciphers
    with House(identity, scripted.engine, version=version) as house:
        SCENARIOS[name](scripted, house)
        scripted.reset()
        for client in house.clients:
            client.close()
        house.until(house.is_empty)
    counts = scripted.counts()
    assert (counts.alive, counts.orphaned, jobs_alive()) == (alive, 0, jobs), counts
    assert not leaks.complaint(before, leaks.holdings())


def outcome(name: str, scripted: ScriptedProvider, identity: Identity, version: str) -> str:
    """Play one scenario; return "ok", or what went wrong."""
    try:
        run(name, scripted, identity, version)
    except BaseException as error:  # noqa: BLE001 - told, and then the next one
        traceback.print_exc()
        scripted.release_all()
        return repr(error)
    return "ok"


def main(version: str, cert: str, key: str, ca: str) -> None:
    """Play all scenarios."""
    identity = Identity("p256", Path(cert), Path(key), Path(ca))
    service._DRAIN_SECONDS = 0.1  # what is left behind does not end by waiting
    with ScriptedProvider() as scripted:
        for name in SCENARIOS:
            sys.stdout.write(f"{name} {outcome(name, scripted, identity, version)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
