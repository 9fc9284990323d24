"""Connecting without waiting: every address of a name, every way to fail, and a stop at any moment."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from support.leaks import PATIENCE
from tlsserver.reactor import Reactor
from tlsserver.signers import remote_connect
from tlsserver.signers.remote_address import Address, parse
from tlsserver.signers.remote_connect import Connecting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_leaks")


class Attempt:
    """One attempt, and what became of it."""

    def __init__(self, reactor: Reactor, address: str | Address, **options: Any) -> None:
        self.reactor = reactor
        self.sockets: list[socket.socket] = []
        self.reasons: list[str] = []
        self.connecting = Connecting(
            reactor,
            parse(address),
            **{"timeout": 5.0, "peer_uids": {os.geteuid()}, **options},
            connected=self.sockets.append,
            failed=self.reasons.append,
        )

    def end(self) -> None:
        give_up = time.monotonic() + PATIENCE
        while not self.sockets and not self.reasons:
            assert time.monotonic() < give_up
            self.reactor.run_turn(0.01)
        for sock in self.sockets:
            assert sock.getblocking() is False
            sock.close()


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    made = Reactor()
    yield made
    made.close()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def resolver(monkeypatch: pytest.MonkeyPatch, look_up: Callable[[Address, int], object]) -> None:
    monkeypatch.setattr(remote_connect, "_look_up", look_up)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_by_tcp(reactor: Reactor, listening: socket.socket, host: str) -> None:
    attempt = Attempt(reactor, f"{host}:{port_of(listening)}")
    attempt.end()
    assert len(attempt.sockets) == 1


def test_all_addresses_of_a_name_are_tried(
    reactor: Reactor, listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(_: Address, flags: int) -> object:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        assert threading.current_thread().name == "tls-resolve"
        return [
            (socket.AF_INET, ("127.0.0.1", 1)),
            (socket.AF_INET6, ("::1", 1)),
            (socket.AF_INET, ("127.0.0.1", port_of(listening))),
        ]

    resolver(monkeypatch, look_up)
    attempt = Attempt(reactor, "keys.test:1")
    attempt.end()
    assert len(attempt.sockets) == 1


def test_nobody_listens(reactor: Reactor) -> None:
    attempt = Attempt(reactor, "127.0.0.1:1")
    attempt.end()
    assert attempt.reasons == ["it cannot be reached: Connection refused"]


def test_no_answer_in_time(reactor: Reactor) -> None:
    """A queue that is full: the kernel drops the rest, as a host does that is gone."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for one in fillers:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        attempt = Attempt(reactor, f"127.0.0.1:{port_of(full)}", timeout=0.05)
        attempt.end()
        assert attempt.reasons == ["it cannot be reached: no answer in time"]
        for one in fillers:
            one.close()


def test_name_that_is_none(reactor: Reactor, monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(_: Address, __: int) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    resolver(monkeypatch, look_up)
    attempt = Attempt(reactor, "nobody.invalid:1")
    attempt.end()
    assert attempt.reasons == ["its name cannot be resolved: Name or service not known"]


def test_name_that_idna_refuses(reactor: Reactor) -> None:
    attempt = Attempt(reactor, Address(host=f"{'x' * 64}.test", port=1))
    attempt.end()
    assert attempt.reasons[0].startswith("its name cannot be resolved: ")


def test_stop_while_a_name_is_resolved(reactor: Reactor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that resolves ends when it can, even after the loop, and nobody hears of it."""
    go_on = threading.Event()

    def look_up(_: Address, flags: int) -> object:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        assert go_on.wait(PATIENCE)
        return [(socket.AF_INET, ("127.0.0.1", 1))]

    resolver(monkeypatch, look_up)
    attempts = [Attempt(reactor, "keys.test:1") for _ in range(2)]
    reactor.run_turn(0)
    attempts[0].connecting.cancel()
    reactor.close()
    resolving = [thread for thread in threading.enumerate() if thread.name == "tls-resolve"]
    go_on.set()
    for thread in resolving:
        thread.join(PATIENCE)
    assert [attempt.reasons + attempt.sockets for attempt in attempts] == [[], []]


@pytest.mark.parametrize("turns", [0, 1])
def test_stop_while_connecting(reactor: Reactor, listening: socket.socket, turns: int) -> None:
    attempt = Attempt(reactor, f"127.0.0.1:{port_of(listening)}")
    for _ in range(turns):
        reactor._soon.popleft()[0]()
    attempt.connecting.cancel()
    attempt.connecting.cancel()
    for _ in range(5):
        reactor.run_turn(0)
    assert (attempt.sockets, attempt.reasons) == ([], [])


def test_unix_socket_of_another_user(reactor: Reactor, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        attempt = Attempt(reactor, f"unix:{tmp_path}/s", peer_uids={12345})
        attempt.end()
        assert f"its socket is user {os.geteuid()}'s, who is not one of peer_uids" in attempt.reasons[0]


def test_abstract_unix_socket(reactor: Reactor) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0tlsserver-test-{os.getpid()}")
        listening.listen()
        attempt = Attempt(reactor, f"unix:@tlsserver-test-{os.getpid()}")
        attempt.end()
        assert len(attempt.sockets) == 1


def test_unix_socket_whose_queue_is_full(reactor: Reactor, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as first:
        listening.bind(str(tmp_path / "s"))
        listening.listen(0)
        first.connect(str(tmp_path / "s"))
        attempt = Attempt(reactor, f"unix:{tmp_path}/s")
        attempt.end()
        assert attempt.reasons == ["it cannot be reached: Resource temporarily unavailable"]


def test_no_unix_socket(reactor: Reactor, tmp_path: Path) -> None:
    attempt = Attempt(reactor, f"unix:{tmp_path}/s")
    attempt.end()
    assert attempt.reasons == ["it cannot be reached: No such file or directory"]


def test_no_descriptor_is_left(reactor: Reactor, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socket", refuse)
    attempt = Attempt(reactor, "127.0.0.1:1")
    attempt.end()
    assert attempt.reasons == ["it cannot be reached: Too many open files"]


def test_no_thread_is_to_be_had(reactor: Reactor, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr("tlsserver.signers.remote_connect.threading.Thread", NoThread)
    attempt = Attempt(reactor, "keys.invalid:1")
    attempt.end()
    assert attempt.reasons == ["its name cannot be resolved: can't start new thread"]


def test_socket_cannot_be_watched(reactor: Reactor, listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """epoll(7): max_user_watches."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    attempt = Attempt(reactor, f"127.0.0.1:{port_of(listening)}")
    with monkeypatch.context() as patch:
        patch.setattr(reactor, "add", refuse)
        attempt.end()
    assert attempt.reasons == ["its socket cannot be watched: No space left on device"]
