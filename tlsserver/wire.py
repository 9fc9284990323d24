"""What a connection needs of the TLS below it: a leaf, so that tests can put a scripted wire in the place of OpenSSL.

`tlsserver.session.Session` is the real one.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsserver.errors import TLSServerError

__all__ = ["Peek", "Step", "TLSInfo", "WaitFdSet", "Wire"]


class Step(enum.IntEnum):
    """What one call of a wire came to."""

    DONE = 0
    WANT_READ = 1
    WANT_WRITE = 2
    WANT_ASYNC = 3  # the job is paused: repeat the same call when a wait fd is readable
    WANT_ASYNC_JOB = 4  # no job to be had: repeat when another has ended
    CLOSED = 5  # the peer's close_notify was read
    EOF = 6  # the TCP stream ended without one
    FAILED = 7  # `Wire.failure` says why; no further call but `close`
    WANT_ANSWER = 8  # of a handshake: `Wire.ask`, and repeat the call when it is answered; no job is held


class Peek(enum.IntEnum):
    """What lies in the socket's buffer, found without taking it out."""

    NOTHING = 0
    BYTES = 1
    LAST_BYTES = 2  # behind them the peer has closed its side
    END = 3  # the peer has closed its side
    BROKEN = 4  # reset, or another error of the socket


class WaitFdSet(NamedTuple):
    """The descriptors of a paused call.

    Attributes:
        all: One of them becomes readable when the call should be repeated; none: nothing tells.
        added: Those of them that the job has set since it was last resumed. Their numbers may be older than they are:
            an engine that closes its descriptor and opens another mostly gets the same number again.
        serial: Of the only descriptor: no other ever has it, so one that comes again is known to be the same; 0: that
            cannot be told.
    """

    all: tuple[int, ...]
    added: tuple[int, ...]
    serial: int = 0


@dataclass(frozen=True)
class TLSInfo:
    """What a handshake settled.

    Attributes:
        version: As OpenSSL names it, such as ``"TLSv1.3"``.
        cipher: The cipher suite's name in OpenSSL.
        group: The key exchange's group, such as ``"X25519MLKEM768"``; None if OpenSSL cannot tell.
        alpn: The protocol agreed upon, such as ``"http/1.1"``; None without ALPN.
        reused: Whether a session was resumed, so that no private key was needed.
        server_name: The name that the client asked for (SNI); None without.
    """

    version: str
    cipher: str
    group: str | None
    alpn: str | None
    reused: bool
    server_name: str | None


class Wire(Protocol):
    """One end of a TLS connection over a non-blocking socket. One thread.

    While a call is paused (`Step.WANT_ASYNC`) only the same call, with the same data, may follow; `peek`, `wait_fds`
    and `close` are always allowed.

    Attributes:
        received: The data, after `read` came to `Step.DONE`.
        drained: After `read` came to `Step.DONE`: nothing is left behind it until the socket is readable again.
        written: How many bytes were taken, after `write` came to `Step.DONE`.
        peer: ``"client"`` or ``"server"``: what the other end is.
    """

    received: bytes
    drained: bool
    written: int
    peer: str

    @property
    def handshake_takes_job(self) -> bool:
        """Whether `handshake` runs in a job."""

    @property
    def data_takes_job(self) -> bool:
        """Whether `read`, `write` and `shutdown` run in jobs."""

    @property
    def asks(self) -> bool:
        """Whether the handshake is paused for an answer of the application's."""

    def handshake(self) -> Step:
        """Go on with the handshake."""

    def ask(self, resume: Callable[[], object]) -> None:
        """Have the question of the handshake answered, after WANT_ANSWER.

        Args:
            resume: Called when it is, on this thread, in a later turn; not after `close`.
        """

    def read(self) -> Step:
        """Read at most one record into `received`."""

    def write(self, data: bytes | memoryview) -> Step:
        """Send the beginning of the data, `written` bytes; after WANT_READ or WANT_WRITE again with the same data."""

    def shutdown(self) -> Step:
        """Send close_notify: DONE when it is sent, CLOSED when the peer's has been read as well."""

    def wait_fds(self) -> WaitFdSet:
        """Return the descriptors of the paused call; to be asked only while one is paused."""

    def failure(self) -> TLSServerError:
        """Return why the last call came to FAILED; its class says whose fault it is."""

    def info(self) -> TLSInfo:
        """Return what the handshake settled."""

    def peek(self) -> Peek:
        """Look at the socket without taking anything out of it."""

    def discard(self) -> bool:
        """Throw away what the socket has received; return whether its end was reached."""

    def answer_plain(self, data: bytes) -> None:
        """Send bytes around TLS, as far as the socket takes them at once, and end our side of the TCP stream."""

    def half_close(self) -> None:
        """End our side of the TCP stream."""

    def close(self) -> bool:
        """Cancel, and free everything but the socket.

        Returns:
            False if the paused job still runs: call again when a wait fd is readable.
        """
