"""Where an application is listened for."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING, Any

import pytest

from tlsserver.cli import app_sockets
from tlsserver.errors import AddressError

if TYPE_CHECKING:
    from pathlib import Path


def listen(**given: Any) -> app_sockets.Listening:
    return app_sockets.listen({"uds": None, "fd": None, "host": "127.0.0.1", "port": 0, "backlog": 5, **given})


def test_a_port() -> None:
    found = listen()
    with found.socket:
        assert found.where == f"https://127.0.0.1:{found.socket.getsockname()[1]}/"
        socket.create_connection(found.socket.getsockname()).close()


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    for _ in range(2):  # the second finds the file of the first
        found = listen(uds=path)
        found.socket.close()
    assert found.where == f"unix:{path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    found.remove()
    assert not path.exists()


def test_somebody_listens_there(tmp_path: Path) -> None:
    found = listen(uds=tmp_path / "socket")
    with found.socket, pytest.raises(AddressError, match="somebody listens there"):
        listen(uds=tmp_path / "socket")


@pytest.mark.parametrize("listening", [False, True])
def test_a_socket_that_was_inherited(listening: bool) -> None:
    with socket.socket() as given:
        given.bind(("127.0.0.1", 0))
        if listening:
            given.listen()
        found = listen(fd=os.dup(given.fileno()))
        with found.socket:
            assert found.where == f"https://127.0.0.1:{given.getsockname()[1]}/"
            assert not found.socket.get_inheritable()
            socket.create_connection(given.getsockname()).close()


def test_a_unix_socket_that_was_inherited(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(path)
        found = listen(fd=os.dup(given.fileno()))
        with found.socket:
            assert found.where == f"unix:{path}"


def test_no_socket(pipe: int) -> None:
    with pytest.raises(AddressError, match="no open socket"):
        listen(fd=pipe)
    for number in (1 << 31, 1 << 70):
        with pytest.raises(AddressError, match="no open socket"):
            listen(fd=number)
    one, other = socket.socketpair()
    with one, other, pytest.raises(AddressError, match="give a bound stream socket"):
        listen(fd=one.fileno())
    assert one.fileno() == -1, "it is still the caller's"
