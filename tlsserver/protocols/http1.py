"""HTTP/1.1 (RFC 9110, RFC 9112) for one connection, on h11.

h11 parses and frames; this file decides when. One request is answered at a time, in order:

    HEAD -> BODY -> RESPONDING -> HEAD ...   or, when the connection cannot go on, -> LINGERING -> CLOSED

- While a response is under way, or the client does not take what was written, nothing is read: bytes of pipelined
  requests wait in the kernel, so a client that only sends costs one read's worth of memory.
- A pipelined request is begun in a turn of the loop of its own, and a long body gives way to others after
  `TURN_BYTES`: one connection cannot keep the loop.
- The answers do not depend on how the bytes were split on their way. h11 checks the size of headers only while they
  are incomplete, so a large request that came in one piece would pass; `_begin` checks it again.
- There is one timer. What it waits for follows from the state alone (`_waiting_for`); it is set anew only when that
  changes, so a client that sends a byte now and then gains no time.
"""

from __future__ import annotations

import asyncio
import enum
from email.utils import formatdate
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import h11

from tlsserver.protocols.base import scheduler_of
from tlsserver.protocols.deadline import Deadline
from tlsserver.protocols.messages import (
    DEFAULT_LIMITS,
    Handler,
    Limits,
    Request,
    Response,
    TargetError,
    log_failure,
    origin_form,
    reason,
)
from tlsserver.protocols.stream import CHUNK, NOTHING, EventStream, PushStream, Source, source_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsserver.protocols.base import Scheduler, Transport

__all__ = ["EventStream", "Handler", "Http1Protocol", "Limits", "PushStream", "Request", "Response", "protocol_factory"]

TURN_BYTES = 4 * CHUNK
"""Bytes of one response that are written in one turn of the loop: about a tenth of a millisecond of encryption."""

_NO_BODY = frozenset({204, 304})
_CONTINUE = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")


class _Stage(enum.Enum):
    HEAD = enum.auto()
    BODY = enum.auto()
    RESPONDING = enum.auto()
    LINGERING = enum.auto()
    CLOSED = enum.auto()


_TAKING = frozenset({_Stage.HEAD, _Stage.BODY, _Stage.LINGERING})
"""Where bytes of the client are taken up."""


class Http1Protocol(asyncio.Protocol):
    """One connection.

    Args:
        handler: Answers each request. What it raises becomes a 500 and one line in the log.
        limits: What the connection may take.
    """

    _transport: Transport
    _scheduler: Scheduler
    _deadline: Deadline

    def __init__(self, handler: Handler, limits: Limits = DEFAULT_LIMITS) -> None:
        self._handler = handler
        self._limits = limits
        self._stage = _Stage.HEAD
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._source: Source = NOTHING
        self._out: list[bytes] = []
        self._unread = 0  # bytes in h11's buffer when the last message began or ended, and those that came since
        self._eof = False
        self._writing_paused = False
        self._reading_paused = False
        self._last = False  # no further request is wanted

    @cached_property
    def _h11(self) -> h11.Connection:
        """Made when the client sends something: it takes as much time and memory as all else here together."""
        # Less one: h11 refuses only above its maximum, and only while the headers are incomplete.
        return h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.header_bytes - 1)

    # The transport's calls.

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - a `Transport`
        """Wait for the first request."""
        self._transport = transport
        self._scheduler = scheduler_of(transport)
        self._deadline = Deadline(self._scheduler, self._expired)
        self._arm()

    def data_received(self, data: bytes) -> None:
        """Take `data` up, or keep it until its turn comes."""
        if self._stage is _Stage.CLOSED:
            return
        self._h11.receive_data(data)
        self._unread += len(data)
        if self._stage is _Stage.RESPONDING or self._writing_paused:
            self._reading_paused = True
            self._transport.pause_reading()
        else:
            self._advance()

    def eof_received(self) -> bool:
        """Answer what was asked, then close. A pushed stream has no end of its own, so it ends here."""
        self._eof = True
        if self._stage is _Stage.HEAD and not self._unread and not self._writing_paused:
            self._close()  # between two requests, or before the first
        elif self._stage is not _Stage.CLOSED:
            self._h11.receive_data(b"")
            self._end_pushed_stream()
            self._advance()
        return self._stage is not _Stage.CLOSED

    def pause_writing(self) -> None:
        """Pull no more of the body."""
        self._writing_paused = True
        self._arm()

    def resume_writing(self) -> None:
        """Go on with the body, or with the next request."""
        self._writing_paused = False
        self._deadline.clear()  # some was taken: when writing pauses again at once, its time starts anew
        self._pump()
        self._advance()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the interface's  # noqa: ARG002 - the interface
        """Give back what the response holds."""
        self._end(_Stage.CLOSED)
        self._deadline.close()

    def close_when_idle(self) -> None:
        """Close now if no request is under way, else after its response. A pushed stream is ended."""
        self._last = True
        if self._stage is _Stage.LINGERING or (self._stage is _Stage.HEAD and not self._unread):
            self._close()
        self._end_pushed_stream()

    # Requests.

    def _advance(self) -> None:
        """Take events until one needs more bytes, a response is under way, or the client does not read."""
        while self._stage in _TAKING and not self._writing_paused:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                self._refuse(error.error_status_hint)
                break
            if event is h11.NEED_DATA:
                self._resume_reading()
                break
            if isinstance(event, h11.EndOfMessage):
                self._mark_consumed()
                self._answer()
                break
            self._take(event)
        self._arm()

    def _take(self, event: object) -> None:
        if isinstance(event, h11.Request):
            self._begin(event)
        elif isinstance(event, h11.Data):
            self._collect(event.data)
        else:  # ConnectionClosed: the client closed between two requests
            self._close()

    def _begin(self, request: h11.Request) -> None:
        self._request = request
        refusal = self._refusal(request, self._mark_consumed())
        if refusal is not None:
            self._refuse(refusal)
            return
        self._stage = _Stage.BODY
        if self._h11.they_are_waiting_for_100_continue:
            # Always, even if the body is here already: when to send it must not depend on how the bytes were split.
            self._transport.write(self._h11.send(_CONTINUE))

    def _refusal(self, request: h11.Request, header_bytes: int) -> int | None:
        """Return the status that refuses a request by its headers, None if it is welcome."""
        if header_bytes > self._limits.header_bytes:
            return 431
        if not request.http_version.startswith(b"1."):
            return 505
        if request.method == b"CONNECT":
            return 501
        try:
            origin_form(request.target.decode("ascii"))
        except TargetError:
            return 400
        headers = dict(request.headers)
        if b"transfer-encoding" in headers and (b"content-length" in headers or request.http_version < b"1.1"):
            return 400  # where the message ends is disputed, so a proxy in front may see two (RFC 9112, section 6.1)
        return 413 if int(headers.get(b"content-length", b"0")) > self._limits.body_bytes else None

    def _collect(self, data: bytes) -> None:
        if self._stage is _Stage.LINGERING:
            return
        self._body += data
        if len(self._body) > self._limits.body_bytes:
            self._refuse(413)

    def _answer(self) -> None:
        if self._stage is _Stage.LINGERING:
            self._close()  # the refused body is over
            return
        assert self._request is not None  # noqa: S101 - h11 ends no message that it has not begun
        request = Request.from_h11(self._request, bytes(self._body), self._transport)
        response: Response | None = None
        try:
            response = self._handler(request)
            head = self._head(response)
        except Exception as error:  # noqa: BLE001 - a handler may raise anything; the server stays up
            log_failure(request, error)
            if isinstance(response, Response):
                source_of(response.body).close()
            response = Response.plain(500)
            head = self._head(response)
        self._respond(head, response)

    def _refuse(self, status: int) -> None:
        """Answer a request that is not served, and be done with the connection."""
        if self._stage is _Stage.LINGERING:  # it has its refusal
            self._close()
            return
        self._last = True
        response = Response.plain(status)
        self._respond(self._head(response), response)

    def _mark_consumed(self) -> int:
        """Return how many bytes h11 took since the last call."""
        rest = len(self._h11.trailing_data[0])
        consumed, self._unread = self._unread - rest, rest
        return consumed

    # Responses.

    def _head(self, response: Response) -> h11.Response:
        """Return the head, checked by h11.

        Raises:
            h11.LocalProtocolError: The status or a header cannot be sent; a line break in a header is one such.
            UnicodeEncodeError: A header has characters beyond Latin-1.
        """
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
        names = {name.lower() for name, _ in headers}
        headers += [(b"Date", formatdate(usegmt=True).encode()), (b"Server", b"tlsserver")]
        if isinstance(response.body, bytes) and response.status not in _NO_BODY and b"content-length" not in names:
            headers.append((b"Content-Length", b"%d" % len(response.body)))
        if self._last:
            headers.append((b"Connection", b"close"))
        return h11.Response(status_code=response.status, headers=headers, reason=reason(response.status).encode())

    def _respond(self, head: h11.Response, response: Response) -> None:
        self._stage = _Stage.RESPONDING
        self._source = source_of(response.body)
        if response.status in _NO_BODY or (self._request is not None and self._request.method == b"HEAD"):
            self._source.close()
            self._source = NOTHING
        if isinstance(self._source, PushStream):
            self._source.attach(self._pump)
        self._out.append(self._h11.send(head))
        self._pump()

    def _pump(self) -> None:
        """Write the body until it ends, the client is slow, nothing is there yet, or others have waited long enough."""
        budget = TURN_BYTES
        while self._stage is _Stage.RESPONDING and not self._writing_paused:
            if budget <= 0:
                self._scheduler.call_soon(self._pump)
                break
            try:
                chunk = self._source.pull()
                event = h11.EndOfMessage() if chunk is None else h11.Data(data=chunk)
                if chunk is None or chunk:
                    self._out.append(self._h11.send(event))
            except Exception as error:  # noqa: BLE001 - a handler's iterator may raise anything
                self._fail(error)
                break
            if chunk is None:
                self._finish()
            elif not chunk:
                break
            else:
                budget -= len(chunk)
                if sum(map(len, self._out)) >= CHUNK:
                    self._flush()
        self._flush()

    def _flush(self) -> None:
        """Write what is ready as one piece: a short response is one TLS record."""
        data = b"".join(self._out)
        self._out.clear()
        if data:
            self._transport.write(data)

    def _finish(self) -> None:
        """The response is complete: go on to the next request, or leave in good order."""
        self._flush()
        self._end(_Stage.HEAD)
        if self._h11.their_state is h11.SEND_BODY:
            self._stage = _Stage.LINGERING
            self._scheduler.call_soon(self._advance)
            self._arm()
        elif self._last or self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            self._close()
        else:
            self._h11.start_next_cycle()
            if self._unread or self._eof:
                self._scheduler.call_soon(self._advance)
            else:
                self._resume_reading()
            self._arm()

    def _fail(self, error: Exception) -> None:
        """A response that has begun cannot be finished. Only an abort tells the client that it is incomplete."""
        assert self._request is not None  # noqa: S101 - refusals have bodies that do not fail
        log_failure(Request.from_h11(self._request, b"", self._transport), error)
        self._out.clear()
        self._end(_Stage.CLOSED)
        self._transport.abort()

    # Ends and deadlines.

    def _end_pushed_stream(self) -> None:
        if isinstance(self._source, PushStream):
            self._source.end()

    def _end(self, stage: _Stage) -> None:
        """Leave the request or the response that is under way."""
        self._stage = stage
        self._request = None
        self._body = bytearray()
        self._deadline.clear()
        source, self._source = self._source, NOTHING
        source.close()

    def _close(self) -> None:
        self._end(_Stage.CLOSED)
        self._transport.close()

    def _resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()

    def _waiting_for(self) -> str | None:
        """Return the limit for what the client owes us now, None if it owes nothing."""
        if self._stage is _Stage.CLOSED:
            return None
        if self._stage is _Stage.LINGERING:
            return "timeout_linger"
        if self._writing_paused:
            return "timeout_write"
        if self._stage is _Stage.HEAD:
            return "timeout_header" if self._unread else "timeout_keep_alive"
        return "timeout_body" if self._stage is _Stage.BODY else None

    def _arm(self) -> None:
        limit = self._waiting_for()
        if limit is None:
            self._deadline.clear()
        else:
            self._deadline.wait_for(limit, getattr(self._limits, limit))

    def _expired(self, limit: str) -> None:
        if limit in {"timeout_header", "timeout_body"}:
            self._refuse(408)
        elif limit == "timeout_write":
            self._end(_Stage.CLOSED)
            self._transport.abort()
        else:
            self._close()


def protocol_factory(handler: Handler, limits: Limits = DEFAULT_LIMITS) -> Callable[[], Http1Protocol]:
    """Return what makes a protocol for each connection, all with the same handler.

    Args:
        handler: Answers each request.
        limits: What one connection may take.
    """
    return partial(Http1Protocol, handler, limits)
