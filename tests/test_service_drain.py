"""Jobs that nobody can cancel: the drain list and its bound. Real handshakes, the loop turned by hand."""

from __future__ import annotations

import logging
import shutil
import socket
import ssl
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from helpers_server import PATIENCE, Client, Echo, House, client_context, make_context
from OpenSSL import SSL

import engine_shim
import tlsserver.service
from tlsserver import Server
from tlsserver.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Identity

pytestmark = pytest.mark.usefixtures("nothing_left")


class Stubborn(Session):
    """Its paused job cannot be cancelled: it ends when `may_end` allows it, as an engine of others does."""

    __slots__ = ()
    may_end = False

    def close(self) -> bool:
        return (type(self).may_end or not self._tls.paused) and super().close()


@pytest.fixture
def stubborn(monkeypatch: pytest.MonkeyPatch) -> type[Stubborn]:
    monkeypatch.setattr(tlsserver.service, "Session", Stubborn)
    monkeypatch.setattr(Stubborn, "may_end", False)
    return Stubborn


def leave(house: House, manual: engine_shim.ManualEngine, count: int) -> None:
    """So many clients begin a handshake, and leave while its operation is in the engine."""
    clients = [house.client() for _ in range(count)]
    before, pending = house.statistics.draining_now, manual.pending
    house.until(lambda: manual.pending == pending + count)
    for client in clients:
        client.close()
        house.clients.remove(client)
    house.until(lambda: house.statistics.draining_now == before + count)


def drain(house: House, manual: engine_shim.ManualEngine, left: int = 0) -> None:
    """Let operations end, oldest first."""
    Stubborn.may_end = True
    while house.statistics.draining_now > left:
        manual.wake()
        house.quiet()


@pytest.mark.usefixtures("stubborn")
def test_below_the_bound_nobody_is_affected(identity: Identity, manual: engine_shim.ManualEngine) -> None:
    with House(identity, manual, max_draining=3, max_handshakes=1) as house:
        leave(house, manual, 1)
        leave(house, manual, 1)
        late = house.client()
        house.until(lambda: manual.pending == 3)
        manual.perform(2)
        house.until(lambda: late.is_connected)
        statistics = house.statistics
        assert (statistics.draining_now, statistics.draining_max, statistics.drained) == (2, 2, 0)
        assert statistics.draining_by_engine == {"manual": 2}
        assert (statistics.handshakes_failed, statistics.handshakes_refused) == (2, 0)
        drain(house, manual)
        statistics = house.statistics
        assert (statistics.draining_now, statistics.draining_max, statistics.drained) == (0, 2, 2)
        assert statistics.draining_by_engine == {"manual": 0}


@pytest.mark.usefixtures("stubborn")
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_at_the_bound_new_handshakes_are_refused(
    identity: Identity, manual: engine_shim.ManualEngine, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    with House(identity, manual, max_draining=2, version=version) as house, caplog.at_level(logging.INFO):
        opened = house.client()
        house.finish(manual)
        in_progress = house.client()
        house.until(lambda: manual.pending == 1)
        leave_after = [house.client(), house.client()]
        house.until(lambda: manual.pending == 3)
        for client in leave_after:
            client.close()
            house.clients.remove(client)
        house.until(lambda: house.statistics.draining_now == 2)
        refused = [house.client() for _ in range(3)]
        house.until(lambda: all(client.error for client in refused))
        for client in refused:
            assert client.error is not None
            assert "ALERT_INTERNAL_ERROR" in str(client.error.reason)
        statistics = house.statistics
        assert (statistics.handshakes_refused, statistics.handshakes_failed) == (3, 2)
        assert statistics.handshakes_in_progress == 1
        opened.send(b"alive")
        house.until(lambda: opened.received == b"ALIVE")
        manual.perform(0)
        house.until(lambda: in_progress.is_connected)
        for client in refused:
            client.close()
            house.clients.remove(client)
        drain(house, manual, left=1)
        late = house.client()
        house.until(lambda: manual.pending)
        drain(house, manual)
        house.finish(manual)
        assert late.is_connected
        house.until(lambda: house.statistics.connections_open == 3)
        statistics = house.statistics
        done = statistics.handshakes_completed + statistics.handshakes_failed + statistics.handshakes_refused
        assert statistics.connections_accepted == done == 8
    lines = [record.getMessage() for record in caplog.records if record.name == "tlsserver.drains"]
    assert ["are refused" in line for line in lines] == [True, False]


@pytest.mark.usefixtures("stubborn")
def test_another_engine_is_not_affected(identity: Identity, manual: engine_shim.ManualEngine) -> None:
    with engine_shim.ManualEngine() as other, House(identity, manual, max_draining=1) as house:
        before = house.client()
        house.until(lambda: manual.pending == 1)
        leave(house, manual, 1)
        assert not before.is_connected
        house.server.swap_context(make_context(identity, other))
        after = house.client()
        house.until(lambda: other.pending)
        other.perform()
        house.until(lambda: after.is_connected)
        assert house.statistics.draining_by_engine == {"manual": 1}
        manual.perform(0)
        house.until(lambda: before.is_connected)
        drain(house, manual)


@pytest.mark.usefixtures("stubborn")
def test_a_refused_client_that_stays_is_dropped_after_a_while(
    identity: Identity, manual: engine_shim.ManualEngine
) -> None:
    with House(identity, manual, max_draining=1, timeout_shutdown=0.05, max_handshakes=1) as house:
        leave(house, manual, 1)
        mute, late = house.client(), house.client()
        house.until(lambda: mute.error)
        assert house.statistics.connections_accepted == 2, "who lingers keeps the next one out"
        assert not mute.is_cut or mute.error
        house.until(lambda: late.error)
        house.until(lambda: house.statistics.connections_open == 1)
        drain(house, manual)


@pytest.mark.usefixtures("stubborn")
def test_jobs_that_are_left_behind_are_told(
    identity: Identity,
    manual: engine_shim.ManualEngine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(tlsserver.service, "_DRAIN_SECONDS", 0.1)
    with House(identity, manual) as house:
        leave(house, manual, 2)
        drivers = tuple(house.service._hub.drivers)
        house.service.close()
        assert house.statistics.draining_now == 2
        assert house.statistics.draining_by_engine == {"manual": 2}
    assert [record.levelname for record in caplog.records if "left behind" in record.getMessage()] == ["ERROR"]
    Stubborn.may_end = True
    for driver in drivers:
        assert driver.connection._wire.close()
        driver._socket.close()


@pytest.mark.usefixtures("stubborn")
def test_a_stop_with_nobody_left_to_serve(identity: Identity, manual: engine_shim.ManualEngine) -> None:
    """The graceful time of 8 s is for clients; a second signal shortens what is left for jobs, and nothing spins."""
    with House(identity, manual) as house:
        leave(house, manual, 1)
        (driver,) = house.service._hub.drivers
        turns = 0

        def signals() -> None:
            nonlocal turns
            turns += 1
            house.service.begin_stop(0)
            house.service._drain_until = min(house.service._drain_until or 0, time.monotonic() + 0.1)

        house.reactor.at_end_of_turn(lambda: None if house.service._drain_until is None else signals())
        begun = time.monotonic()
        house.reactor.call_soon(house.service.begin_stop, 8)
        house.service.run()
        assert time.monotonic() - begun < 1.5
        assert turns < 20, "a reactor that is stopped does not wait"
        assert house.statistics.draining_now == 1
    Stubborn.may_end = True
    assert driver.connection._wire.close()
    driver._socket.close()


@pytest.mark.usefixtures("stubborn")
def test_what_drains_takes_nobodys_place(identity: Identity, manual: engine_shim.ManualEngine) -> None:
    with House(identity, manual, limit_concurrency=1) as house:
        leave(house, manual, 1)
        late = house.client()
        house.until(lambda: manual.pending == 2)
        manual.perform(1)
        house.until(lambda: late.is_connected)
        drain(house, manual)


# The alert, as clients of others see it


@pytest.fixture
def refusing(identity: Identity, stubborn: type[Stubborn]) -> Iterator[tuple[str, int]]:
    """The address of a server on a thread of its own whose engine takes no handshakes."""
    with (
        engine_shim.ManualEngine() as manual,
        Server(make_context(identity, manual), Echo, port=0, max_draining=1) as server,
    ):
        leaver = Client(server.address, client_context(identity.ca))
        leaver.step()
        until(lambda: manual.pending)
        leaver.close()
        until(lambda: server.statistics().draining_now)
        yield server.address
        stubborn.may_end = True
        manual.wake()


def until(condition: Any) -> None:
    pause = threading.Event()
    for _ in range(int(PATIENCE * 1000)):
        if condition():
            return
        pause.wait(0.001)
    pytest.fail("nothing came of it")


def test_pyopenssl_reports_the_alert(refusing: tuple[str, int]) -> None:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    with socket.create_connection(refusing) as sock:
        connection = SSL.Connection(context, sock)
        connection.set_connect_state()
        with pytest.raises(SSL.Error, match="alert internal error"):
            connection.do_handshake()


def test_the_standard_library_reports_the_alert(refusing: tuple[str, int], identity: Identity) -> None:
    with socket.create_connection(refusing) as sock, pytest.raises(ssl.SSLError, match="ALERT_INTERNAL_ERROR"):
        client_context(identity.ca).wrap_socket(sock, server_hostname="localhost")


@pytest.mark.parametrize(
    ("program", "words"),
    [("curl", ["curl", "-sS", "https://{}:{}/"]), ("openssl", ["openssl", "s_client", "-connect", "{}:{}"])],
)
def test_programs_report_the_alert(refusing: tuple[str, int], program: str, words: list[str]) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    address = list(map(str, refusing))
    command = [words[0], *(word.format(*address) for word in words[1:])]
    done = subprocess.run(command, input=b"", capture_output=True, check=False, timeout=PATIENCE)
    assert done.returncode != 0
    assert b"internal error" in done.stderr.lower()
