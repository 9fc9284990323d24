"""What an HTTP handler gets and gives: `Request`, `Response`, and the `Limits` that a connection keeps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    import h11

    from tlsserver.protocols.base import Transport
    from tlsserver.protocols.stream import PushStream

_log = logging.getLogger("tlsserver.http")

Headers: TypeAlias = "tuple[tuple[str, str], ...]"


class TargetError(ValueError):
    """A request target of no form that RFC 9112 section 3.2 gives."""


@dataclass(frozen=True)
class Limits:
    """What one connection may take.

    Attributes:
        header_bytes: The most bytes of a request's line and headers together; more is answered by 431.
        body_bytes: The most bytes of a request's body; more is answered by 413.
        timeout_header: Seconds from a request's first byte to the end of its headers; else 408.
        timeout_body: Seconds for a request's body; else 408.
        timeout_keep_alive: Seconds between two requests; then the connection is closed.
        timeout_write: Seconds in which the client must take some of a response; then the connection is aborted.
        timeout_linger: Seconds in which a refused body is still read and dropped. To close at once would make the
            kernel send a reset, which may destroy the refusal before the client reads it.
    """

    header_bytes: int = 16 * 1024  # h11's own default: room for large cookies
    body_bytes: int = 1024 * 1024  # a handler gets the body in one piece, so this is memory
    timeout_header: float = 10.0
    timeout_body: float = 60.0
    timeout_keep_alive: float = 5.0  # uvicorn's default
    timeout_write: float = 60.0
    timeout_linger: float = 2.0  # one retransmission and a slow last mile


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Request:
    """One request, complete.

    Attributes:
        method: As sent, such as "GET".
        target: As sent: the path with its query, or an absolute URI.
        headers: Pairs of lower-case name and value, in the order sent.
        body: The whole body; empty if there was none.
        transport: The connection's transport, for `get_extra_info`.
    """

    method: str
    target: str
    headers: Headers
    body: bytes
    transport: Transport

    @classmethod
    def from_h11(cls, head: h11.Request, body: bytes, transport: Transport) -> Request:
        """Return the request whose head h11 has read."""
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers)
        return cls(head.method.decode("ascii"), head.target.decode("ascii"), headers, body, transport)

    @property
    def raw_path(self) -> str:
        """The path as sent, percent-encoded; "*" for `OPTIONS *`."""
        return origin_form(self.target).partition("?")[0]

    @property
    def path(self) -> str:
        """The path, decoded. An encoded slash looks like a slash here; use `raw_path` where that matters."""
        return unquote(self.raw_path, errors="surrogateescape")

    @property
    def query(self) -> str:
        """What stands behind the question mark, as sent."""
        return origin_form(self.target).partition("?")[2]

    def header(self, name: str) -> str | None:
        """Return the value of the header `name` (any case), several joined by commas; None if there is none."""
        values = [value for key, value in self.headers if key == name.lower()]
        return ", ".join(values) if values else None


@dataclass(frozen=True)
class Response:
    """The answer to one request.

    `Date`, `Server` and the headers that frame the body are set by the connection. An iterator is pulled only as fast
    as the client takes the bytes; give `Content-Length` if it is known, else the body is sent in chunks. An iterator
    with a `close` method is closed exactly once, however the response ends. The body is left out where HTTP allows
    none (HEAD, 204, 304).

    Attributes:
        status: 200 to 599.
        headers: Pairs of name and value.
        body: Bytes, an iterator of bytes, or a `PushStream` that is written to later.
    """

    status: int = 200
    headers: Headers = ()
    body: bytes | Iterator[bytes] | PushStream = b""

    @classmethod
    def plain(cls, status: int, headers: Headers = ()) -> Response:
        """Return a short text that says what the status means."""
        text = f"{status} {reason(status)}\n"
        return cls(status, (("Content-Type", "text/plain; charset=utf-8"), *headers), text.encode())


Handler: TypeAlias = Callable[[Request], Response]
"""Answers a request, on the loop's thread: it must not block."""


def reason(status: int) -> str:
    """Return the phrase for `status`, such as "Not Found"; "Unknown" for one that has none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def origin_form(target: str) -> str:
    """Return path and query of `target`.

    A server must take the absolute form too (RFC 9112, section 3.2.2); "*" stays as it is.

    Raises:
        TargetError: It is of neither form.
    """
    if target.startswith("/") or target == "*":
        return target
    try:
        parts = urlsplit(target)
    except ValueError as error:
        raise TargetError(target) from error
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise TargetError(target)
    return f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"


def log_failure(request: Request, error: Exception) -> None:
    """Write one line, whatever the exception's text; the traceback only where debugging is wanted."""
    _log.error("%s %s failed: %r", request.method, request.target, error)
    _log.debug("traceback of the failure", exc_info=error)
