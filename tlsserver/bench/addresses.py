"""Where the load goes, and where it comes from.

Facts. A connection that we close first stays in TIME_WAIT for a minute, and its port is taken for that time as far as
the same two addresses are concerned. There are 28,232 ports (ip_local_port_range), so at 3,000 connections a second
they last nine seconds; before that, connect(2) looks for a free one ever longer.

Decision. All of 127.0.0.0/8 is ours: after every few thousand connections the next source address is used, and each has
had its minute of rest when its turn comes again. The port is chosen at connect, not at bind (IP_BIND_ADDRESS_NO_PORT,
ip(7)), so that it only has to be free towards this target.

Trade-off. A server that treats addresses differently sees many. The first few thousand come from the ordinary one.
"""

from __future__ import annotations

import ipaddress
import itertools
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, TypeAlias

    Place: TypeAlias = tuple[socket.AddressFamily, Any]

PORTS_OF_A_SOURCE = 8192
SOURCES = 64  # 524,288 connections until the first is used again: 8,700 a second for a minute
PATIENCE = 1.0  # seconds for each of several addresses
# linux/in.h; `socket` has it from Python 3.12 on.
_IP_BIND_ADDRESS_NO_PORT = 24


@dataclass(frozen=True)
class Target:
    """A server, resolved.

    Attributes:
        name: As the user wrote it, with the port.
        host: Without the port.
        family: Of the socket.
        address: For connect(2).
        is_loopback: Whether it is on this machine and unreachable for others.
    """

    name: str
    host: str
    family: socket.AddressFamily
    address: Any
    is_loopback: bool


def find_target(text: str, *, allow_remote: bool = False) -> Target:
    """Resolve ``HOST:PORT``.

    Args:
        text: A name or an address; of IPv6 in brackets.
        allow_remote: Whether it may be another machine.

    Raises:
        ConfigurationError: It is written wrongly, unknown, or remote (one of its addresses is enough).
    """
    host, port = _split(text)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"host {host!r} has no address: {error}; give another name, or an address") from error
    remote = [entry[4][0] for entry in found if not _is_loopback(str(entry[4][0]))]
    if remote and not allow_remote:
        raise ConfigurationError(
            f"target {text} is not on this machine ({remote[0]}): a load is an attack on whoever does not expect it; "
            "give --allow-remote if its owner agrees"
        )
    family, address = _first_that_accepts([(entry[0], entry[4]) for entry in found])
    return Target(text, host, family, address, not remote)


def sources(target: Target, share: int = 0, shares: int = 1) -> Iterator[tuple[str, int] | None]:
    """Give the address to bind for each connection in turn, without end; None: leave it to the kernel.

    Args:
        target: Where they go.
        share: Which of several processes this is, from 0 on; each has addresses of its own.
        shares: How many there are.
    """
    if not target.is_loopback or target.family != socket.AF_INET:
        yield from itertools.repeat(None)
    mine = range(share, max(SOURCES, shares), shares)
    for number in itertools.cycle(mine):
        source = (f"127.0.0.{number + 1}", 0) if number else None
        yield from itertools.repeat(source, PORTS_OF_A_SOURCE)


def bind_source(sock: socket.socket, source: tuple[str, int]) -> None:
    """Bind to an address without choosing the port yet."""
    sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind(source)


def _split(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or (":" in bare and bare == host) or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ConfigurationError(f"target {text!r} is not HOST:PORT: write 127.0.0.1:8443 or [::1]:8443")
    return bare, int(port)


def _is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def _first_that_accepts(found: list[Place]) -> Place:
    """Choose among several addresses (localhost has two) the one where somebody listens; else the first."""
    for family, address in found if len(found) > 1 else ():
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(PATIENCE)
            if sock.connect_ex(address) == 0:
                return family, address
    return found[0]
