"""The settings of a server, frozen, each default with its reason. A leaf but for the errors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict

from tlsserver.errors import ConfigurationError

__all__ = ["ServerConfig", "ServerOptions"]

_PORT_MAX = 65535
_INT_MAX = 2**31 - 1  # what is handed to the kernel or to OpenSSL
_MAX_DRAINING = 100


class ServerOptions(TypedDict, total=False):
    """The fields of `ServerConfig` as the keyword arguments of `tlsserver.Server`; a test compares the two."""

    host: str
    port: int
    backlog: int
    max_handshakes: int
    limit_concurrency: int | None
    async_jobs: int | None
    max_draining: int | None
    timeout_handshake: float
    timeout_idle: float | None
    timeout_shutdown: float
    timeout_graceful_shutdown: float
    read_budget: int
    write_budget: int
    accept_budget: int
    write_buffer_high: int
    write_buffer_low: int


@dataclass(frozen=True)
class ServerConfig:
    """Everything about a server that is neither TLS nor the protocol. Sizes in bytes, times in seconds.

    Attributes:
        host: Name or address to listen on. Loopback: nothing is exposed before somebody decides so.
        port: TCP port, 0 for any free one. 8443 is the usual HTTPS port that needs no privilege.
        backlog: Connections the kernel holds for us while accepting is paused. 1024 outlasts a burst of one full batch
            of handshakes; the kernel cuts it to net.core.somaxconn (4096).
        max_handshakes: Handshakes in progress at which accepting stops until some end. One costs up to 100 KB (SSL
            object, buffers, the job's stack), so 1000 of them bound the memory that strangers can take at 100 MB.
        limit_concurrency: Open connections at which accepting stops; None: only file descriptors are the limit.
        async_jobs: OpenSSL's jobs on the server's thread, the most at one time, and so the most operations that it has
            in engines; who gets none waits, first come, first served. None: one for whoever needs one; what a job costs
            (a stack of 64 KB) is counted in ``max_handshakes`` already.
        max_draining: Operations of one engine that go on without their connections, because nobody can cancel them, at
            which its new handshakes are refused. None: 100, a tenth of what handshakes may hold, or half of
            ``async_jobs``, which leaves as many jobs to the living.
        timeout_handshake: From accept to the end of the handshake, parked time included. 10, as in Go's net/http: three
            round trips by satellite and a slow HSM fit in.
        timeout_idle: An open connection with no byte either way is aborted; None: never. 300 outlasts NATs' and load
            balancers' usual 60 to 240, so that they, not we, decide; protocols set shorter limits of their own.
        timeout_shutdown: Wait for the peer's close_notify after ours. 5: one lost segment may be sent again four times.
        timeout_graceful_shutdown: Wait for handshakes and responses when the server stops. 8 lies below the 10 after
            which container runtimes kill.
        read_budget: Bytes that one connection may read in a turn of the loop. 256 KiB is 16 full TLS records, about 100
            us of decryption: the others do not notice.
        write_budget: Bytes that one connection may encrypt in a turn of the loop; the same reason.
        accept_budget: Connections accepted in a turn. 8, at about 100 us each, take less than 1 ms.
        write_buffer_high: Unsent bytes at which the protocol is told to pause writing. 64 KiB, as in asyncio: four
            records.
        write_buffer_low: Unsent bytes at which it may go on. A quarter of that, as in asyncio.

    Raises:
        ConfigurationError: On a value that cannot work, naming it.
    """

    host: str = "127.0.0.1"
    port: int = 8443
    backlog: int = 1024
    max_handshakes: int = 1000
    limit_concurrency: int | None = None
    async_jobs: int | None = None
    max_draining: int | None = None
    timeout_handshake: float = 10.0
    timeout_idle: float | None = 300.0
    timeout_shutdown: float = 5.0
    timeout_graceful_shutdown: float = 8.0
    read_budget: int = 256 * 1024
    write_budget: int = 256 * 1024
    accept_budget: int = 8
    write_buffer_high: int = 64 * 1024
    write_buffer_low: int = 16 * 1024

    def __post_init__(self) -> None:
        if not isinstance(self.host, str):
            raise _bad("host", self.host, "a host name or an address")
        _check_port(self.port)
        for name in ("backlog", "max_handshakes", "read_budget", "write_budget", "accept_budget"):
            _check_count(name, getattr(self, name), least=1)
        for name in ("limit_concurrency", "async_jobs", "max_draining"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name), least=1)
        for name in ("backlog", "async_jobs"):
            if (getattr(self, name) or 0) > _INT_MAX:
                raise _bad(name, getattr(self, name), f"at most {_INT_MAX}")
        for name in ("timeout_handshake", "timeout_shutdown"):
            _check_seconds(name, getattr(self, name))
        if self.timeout_idle is not None:
            _check_seconds("timeout_idle", self.timeout_idle)
        _check_seconds("timeout_graceful_shutdown", self.timeout_graceful_shutdown, zero=True)
        _check_count("write_buffer_high", self.write_buffer_high, least=0)
        _check_count("write_buffer_low", self.write_buffer_low, least=0)
        if self.write_buffer_low > self.write_buffer_high:
            at_most = f"at most write_buffer_high, which is {self.write_buffer_high}"
            raise _bad("write_buffer_low", self.write_buffer_low, at_most)

    @cached_property
    def write_buffer_limits(self) -> tuple[int, int]:
        """``(write_buffer_low, write_buffer_high)``, one object for all connections."""
        return self.write_buffer_low, self.write_buffer_high

    @property
    def draining_most(self) -> int:
        """What ``max_draining`` comes to."""
        if self.max_draining is not None:
            return self.max_draining
        return _MAX_DRAINING if self.async_jobs is None else max(self.async_jobs // 2, 1)


def _bad(name: str, value: object, wanted: str) -> ConfigurationError:
    return ConfigurationError(f"{name}={value!r} cannot work: give {wanted}")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_port(value: object) -> None:
    if not _is_int(value) or not 0 <= value <= _PORT_MAX:  # type: ignore[operator]
        raise _bad("port", value, f"a number from 0 (any free port) to {_PORT_MAX}")


def _check_count(name: str, value: object, *, least: int) -> None:
    if not _is_int(value) or value < least:  # type: ignore[operator]
        raise _bad(name, value, f"a whole number, {least} or more")


def _check_seconds(name: str, value: object, *, zero: bool = False) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or value < 0 or (value == 0 and not zero):  # type: ignore[operator]
        raise _bad(name, value, "a number of seconds" + (", 0 or more" if zero else " above 0"))
