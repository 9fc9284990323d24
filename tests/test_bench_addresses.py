"""Where a load goes, and where it comes from."""

from __future__ import annotations

import contextlib
import itertools
import socket
from typing import Any

import pytest

from tlsserver.bench.addresses import PORTS_OF_A_SOURCE, SOURCES, Target, bind_source, find_target, sources
from tlsserver.errors import ConfigurationError

LOOPBACK = Target("127.0.0.1:1", "127.0.0.1", socket.AF_INET, ("127.0.0.1", 1), is_loopback=True)


@pytest.mark.parametrize(
    ("text", "host", "address"),
    [
        ("127.0.0.1:8443", "127.0.0.1", ("127.0.0.1", 8443)),
        ("127.9.9.9:1", "127.9.9.9", ("127.9.9.9", 1)),
        ("[::1]:65535", "::1", ("::1", 65535, 0, 0)),
        ("[::ffff:127.0.0.1]:443", "::ffff:127.0.0.1", ("::ffff:127.0.0.1", 443, 0, 0)),
    ],
)
def test_this_machine(text: str, host: str, address: tuple[str, int]) -> None:
    found = find_target(text)
    assert (found.name, found.host, found.address, found.is_loopback) == (text, host, address, True)


@pytest.mark.parametrize(
    "text", ["", "8443", ":8443", "localhost", "localhost:", "h:0", "h:65536", "h:-1", "::1:443", "h:x"]
)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not HOST:PORT: write"):
        find_target(text)


def test_a_name_without_an_address() -> None:
    with pytest.raises(ConfigurationError, match=r"host 'nobody\.invalid' has no address"):
        find_target("nobody.invalid:443")


@pytest.mark.parametrize("text", ["192.0.2.1:443", "[2001:db8::1]:443", "0.0.0.0:443", "[::ffff:192.0.2.1]:443"])
def test_others_are_left_alone(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"not on this machine.*--allow-remote"):
        find_target(text)
    assert not find_target(text, allow_remote=True).is_loopback


def resolve_to(monkeypatch: pytest.MonkeyPatch, *found: tuple[str, int]) -> None:
    entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in found]

    def getaddrinfo(*_: object, **__: object) -> list[Any]:
        return entries

    monkeypatch.setattr("tlsserver.bench.addresses.socket.getaddrinfo", getaddrinfo)


def test_one_remote_address_of_a_name_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, ("127.0.0.1", 443), ("192.0.2.1", 443))
    with pytest.raises(ConfigurationError, match=r"\(192\.0\.2\.1\)"):
        find_target("mixed.example:443")


def test_of_several_addresses_the_one_that_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.2", 0)) as listener:
        port = listener.getsockname()[1]
        resolve_to(monkeypatch, ("127.0.0.1", port), ("127.0.0.2", port))
        assert find_target(f"two.example:{port}").address == ("127.0.0.2", port)
    assert find_target(f"two.example:{port}").address == ("127.0.0.1", port)


def test_sources_rest_for_long() -> None:
    numbers = [
        source for source, _ in itertools.groupby(itertools.islice(sources(LOOPBACK), PORTS_OF_A_SOURCE * SOURCES + 1))
    ]
    assert numbers[0] is numbers[-1] is None
    assert numbers[1:-1] == [(f"127.0.0.{number}", 0) for number in range(2, SOURCES + 1)]


def test_processes_share_no_source() -> None:
    def those(share: int) -> set[tuple[str, int] | None]:
        return set(itertools.islice(sources(LOOPBACK, share, 3), 0, SOURCES * PORTS_OF_A_SOURCE, PORTS_OF_A_SOURCE))

    assert those(0) | those(1) | those(2) == set(
        itertools.islice(sources(LOOPBACK), 0, SOURCES * PORTS_OF_A_SOURCE, PORTS_OF_A_SOURCE)
    )
    assert those(0).isdisjoint(those(1) | those(2))
    assert those(1).isdisjoint(those(2))


@pytest.mark.parametrize("more", [{"is_loopback": False}, {"family": socket.AF_INET6}])
def test_elsewhere_the_kernel_chooses(more: dict[str, Any]) -> None:
    values = {"name": "", "host": "", "family": socket.AF_INET, "address": ("", 1), "is_loopback": True, **more}
    assert set(itertools.islice(sources(Target(**values)), PORTS_OF_A_SOURCE + 1)) == {None}


def test_a_port_is_taken_at_connect_only() -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(socket.socket())
        bind_source(client, ("127.0.0.7", 0))
        assert client.getsockname() == ("127.0.0.7", 0)
        client.connect(listener.getsockname())
        assert client.getsockname()[0] == "127.0.0.7"
        assert client.getsockname()[1] != 0
