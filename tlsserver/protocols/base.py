"""What a protocol and the server expect of each other: the interface of asyncio, and a little more.

A protocol is an `asyncio.Protocol`, made once for each connection, after its handshake. Every method is called on the
loop's thread and must not block. The order of calls is that of asyncio: `connection_made`, then any number of
`data_received`, `pause_writing` and `resume_writing`, then at most one `eof_received`, then `connection_lost`, exactly
once. One that has `close_when_idle` as well (`GracefulProtocol`) can finish its work before the server stops.

`Transport.get_extra_info` knows these names beside asyncio's `peername` and `sockname`:

======== ======================= =========================================================================
name     type                    meaning
======== ======================= =========================================================================
reactor  `Scheduler`             timers of the loop that drives the connection
tls      `TLSInfo`               what was negotiated
park     `ParkInfo`              how long the handshake was parked
engine   `str`, or None          where private-key operations run; None: OpenSSL performs them on the loop
======== ======================= =========================================================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeAlias, runtime_checkable

Transport: TypeAlias = asyncio.Transport
"""The connection's side that a protocol writes to."""

ProtocolFactory: TypeAlias = Callable[[], asyncio.BaseProtocol]
"""Makes the protocol of one connection."""


@runtime_checkable
class GracefulProtocol(Protocol):
    """A protocol that can finish what it is doing before the server stops."""

    def close_when_idle(self) -> None:
        """Close now if nothing is going on, else when it is done."""


class TimerHandle(Protocol):
    """A timer that is set."""

    def cancel(self) -> None:
        """Forget the timer. Harmless if it has fired."""


class Scheduler(Protocol):
    """Timers on the loop's thread: the reactor's, and an asyncio loop's as well."""

    def time(self) -> float:
        """Return the loop's clock in seconds; it never runs backwards."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> TimerHandle:
        """Call `callback` in `delay` seconds."""

    def call_soon(self, callback: Callable[[], object], /) -> object:
        """Call `callback` in the loop's next turn."""


class TLSInfo(Protocol):
    """What a handshake negotiated."""

    @property
    def version(self) -> str:
        """Such as "TLSv1.3"."""

    @property
    def cipher(self) -> str:
        """The cipher suite's name in OpenSSL."""

    @property
    def group(self) -> str | None:
        """The key exchange group, such as "X25519MLKEM768"; None if unknown or none was used."""

    @property
    def alpn(self) -> str | None:
        """The application protocol that was chosen."""

    @property
    def reused(self) -> bool:
        """Whether an earlier session was resumed."""

    @property
    def server_name(self) -> str | None:
        """The name that the client asked for (SNI)."""


class ParkInfo(Protocol):
    """How the handshake was parked: waiting for an engine, off the loop."""

    @property
    def parks(self) -> int:
        """How many times."""

    @property
    def seconds(self) -> float:
        """How long in total."""


def scheduler_of(transport: Transport) -> Scheduler:
    """Return the timers of the loop that drives `transport`: its reactor's, or the running asyncio loop's."""
    reactor: Scheduler | None = transport.get_extra_info("reactor")
    return asyncio.get_running_loop() if reactor is None else reactor
