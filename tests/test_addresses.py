"""Addresses of sockets: those that are known, and those that nobody knows any more."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tlsserver.addresses import as_text, own_address, peer_address


def test_both_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        far = socket.create_connection(listening.getsockname())
        near, address = listening.accept()
        with near, far:
            assert peer_address(near) == address == own_address(far)
        assert peer_address(near) is None
        assert own_address(near) is None
        assert peer_address(listening) is None, "it has none"


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("127.0.0.1", 443), "127.0.0.1:443"),
        (("::1", 443, 0, 0), "[::1]:443"),
        ("/run/socket", "/run/socket"),
        ("", "a local server"),
        (None, "a server that has left"),
    ],
)
def test_text(address: Any, text: str) -> None:
    assert as_text(address, "server") == text
