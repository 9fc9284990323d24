"""Binding, accepting, admission, and what accept(2) can fail with."""

from __future__ import annotations

import errno
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
from helpers_reactor import check_descriptors

from tlsserver.errors import AddressError, ConfigurationError
from tlsserver.listener import Listener, bind
from tlsserver.reactor import Reactor

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("descriptors")


@pytest.fixture
def descriptors() -> Iterator[None]:
    yield from check_descriptors()


class ScriptedSocket(socket.socket):
    """A listening socket whose accept fails as told, before it works."""

    errors: list[int]

    def _accept(self) -> tuple[int, Any]:
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, os.strerror(number))
        accepted: tuple[int, Any] = super()._accept()  # type: ignore[misc]
        return accepted


class Stage:
    """A listener, its loop and its clients."""

    def __init__(self) -> None:
        plain = bind("127.0.0.1", 0, 64)
        self.socket = ScriptedSocket(fileno=plain.detach())
        self.socket.setblocking(False)
        self.socket.errors = []
        self.reactor = Reactor()
        self.accepted: list[socket.socket] = []
        self.clients: list[socket.socket] = []
        self.room = 1000
        self.listener = Listener(
            self.socket,
            self.reactor,
            accepted=lambda sock, _address: self.accepted.append(sock),
            room=lambda: self.room - len(self.accepted),
            budget=4,
        )
        self.reactor.at_end_of_turn(self.listener.admit)

    def connect(self, count: int) -> None:
        for _ in range(count):
            self.clients.append(socket.create_connection(self.socket.getsockname()))

    def turn(self) -> int:
        """Run one turn without waiting; return how many are accepted by now."""
        self.reactor.run_turn(0)
        return len(self.accepted)

    def close(self) -> None:
        self.listener.close()
        self.listener.close()
        self.reactor.close()
        for one in self.accepted + self.clients:
            one.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.close()


# Binding


def test_bind_gives_what_accepting_needs() -> None:
    with bind("127.0.0.1", 0, 8) as listening:
        assert listening.gettimeout() == 0
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        host, port = listening.getsockname()
        assert host == "127.0.0.1"
        assert port > 0


def test_accepted_sockets_have_no_delay(stage: Stage) -> None:
    stage.connect(1)
    stage.turn()
    assert stage.accepted[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert stage.accepted[0].gettimeout() == 0


def test_ipv6() -> None:
    try:
        listening = bind("::1", 0, 8)
    except AddressError:
        pytest.skip("no IPv6 here")
    with listening:
        assert listening.family is socket.AF_INET6


@pytest.mark.parametrize(
    ("host", "hint"),
    [("192.0.2.1", "no such address"), ("unknown.test", "no such host"), ("a" * 300, "no such host")],
)
def test_a_bad_address_is_one_line(host: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def without_network(name: str | None, *args: Any, **options: Any) -> Any:
        if name == "unknown.test":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(name, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", without_network)
    with pytest.raises(AddressError, match=hint) as caught:
        bind(host, 0, 8)
    assert isinstance(caught.value, ConfigurationError)
    assert "\n" not in str(caught.value)
    assert host in str(caught.value)


def test_a_port_in_use_is_one_line() -> None:
    with bind("127.0.0.1", 0, 8) as first:
        port = first.getsockname()[1]
        with pytest.raises(AddressError, match=rf"^cannot listen on 127\.0\.0\.1:{port}: the port is in use: "):
            bind("127.0.0.1", port, 8)


def test_a_port_that_is_not_allowed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: socket.socket, _address: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(AddressError, match="choose a port above 1023"):
        bind("127.0.0.1", 443, 8)


# Accepting


def test_a_budget_for_each_turn(stage: Stage) -> None:
    stage.connect(10)
    assert [stage.turn() for _ in range(4)] == [4, 8, 10, 10]


def test_no_more_than_there_is_room_for(stage: Stage) -> None:
    stage.room = 3
    stage.connect(5)
    assert [stage.turn() for _ in range(3)] == [3, 3, 3]
    assert stage.listener._registration.events == 0, "a full house must not be woken by each knock"
    stage.room = 4
    assert [stage.turn() for _ in range(3)] == [3, 4, 4]
    stage.room = 100
    stage.turn()
    assert stage.turn() == 5


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN])
def test_one_dead_connection_does_not_hold_the_next(stage: Stage, number: int) -> None:
    stage.connect(1)
    stage.socket.errors = [number, number]
    assert stage.turn() == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_exhaustion_pauses_and_does_not_spin(stage: Stage, number: int, caplog: pytest.LogCaptureFixture) -> None:
    stage.connect(1)
    stage.socket.errors = [number, number]
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            assert stage.turn() == 0
        assert stage.socket.errors == [number], "asked again within the pause"
        stage.reactor.run_turn()  # waits for the pause to end, and nothing else
        assert stage.turn() == 0
        assert stage.socket.errors == []
        stage.reactor.run_turn()
        assert stage.turn() == 1
    [message] = caplog.messages
    assert os.strerror(number) in message
    assert "\n" not in message


def test_the_log_speaks_again_after_a_recovery(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.connect(2)
    for accepted in (1, 2):
        stage.socket.errors = [errno.EMFILE]
        stage.listener._budget = 1
        stage.turn()
        stage.reactor.run_turn()
        assert stage.turn() == accepted
    assert len(caplog.messages) == 2


def test_close_while_pausing(stage: Stage) -> None:
    stage.connect(1)
    stage.socket.errors = [errno.EMFILE]
    stage.turn()
    stage.listener.close()
    assert stage.reactor._patience(None) is None, "a pause outlived its listener"


def test_what_cannot_be_taken_over_is_closed(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_sock: socket.socket, _address: object) -> None:
        message = "on purpose"
        raise RuntimeError(message)

    stage.listener._accepted = refuse
    stage.connect(2)
    stage.turn()
    assert [client.recv(1) for client in stage.clients] == [b"", b""]
    assert caplog.text.count("RuntimeError: on purpose") == 2


def test_the_waiting_are_accepted_before_the_end(stage: Stage) -> None:
    stage.connect(6)
    address = stage.socket.getsockname()
    stage.listener.accept_waiting(64)
    stage.listener.close()
    assert len(stage.accepted) == 6
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
