"""Bodies of HTTP/1.1 responses: made at once, pulled or pushed, and what goes wrong on the way."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from helpers_web import Pieces, Wire, get

from tlsserver.protocols.http1 import Http1Protocol, Limits, PushStream, Response
from tlsserver.protocols.stream import CHUNK

if TYPE_CHECKING:
    from tlsserver.protocols.http1 import Request

LIMITS = Limits(header_bytes=400, body_bytes=100)


def tell(request: Request) -> Response:
    """Answer with what was asked."""
    return Response(body=f"{request.method} {request.path}?{request.query} ".encode() + request.body)


def wire(handler: object = tell, limits: Limits = LIMITS, room: int | None = None) -> Wire:
    return Wire(Http1Protocol(handler, limits), room)  # type: ignore[arg-type]


# The handler's mistakes.

MISTAKES = {
    "raises": lambda _: 1 // 0,
    "no response": lambda _: None,
    "split by name": lambda _: Response(200, (("A: b\r\nSet-Cookie", "x"),)),
    "split by value": lambda _: Response(200, (("A", "b\r\nSet-Cookie: x"),)),
    "split by line feed": lambda _: Response(200, (("A", "b\nSet-Cookie: x"),)),
    "beyond Latin-1": lambda _: Response(200, (("A", "\u2713"),)),
    "informational": lambda _: Response(101),
    "not a status": lambda _: Response(99),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_handlers_mistake_is_a_500_and_one_line_in_the_log(mistake: str, caplog: pytest.LogCaptureFixture) -> None:
    w = wire(MISTAKES[mistake]).feed(get("/x"))
    reply = w.reply()
    assert (reply.status, reply.body) == (500, b"500 Internal Server Error\n")
    assert "set-cookie" not in reply.headers
    assert not w.transport.closed
    (record,) = [r for r in caplog.records if r.levelno > logging.DEBUG]
    assert record.getMessage().startswith("GET /x failed: ")
    assert "\n" not in record.getMessage()


def test_a_response_that_cannot_begin_gives_back_its_body() -> None:
    body = Pieces(b"x")
    assert wire(lambda _: Response(200, (("A", "\n"),), body)).feed(get()).reply().status == 500
    assert body.closed == 1


@pytest.mark.parametrize(
    ("length", "pieces"),
    [(None, [b"some", OSError("disk")]), ("9", [b"some"]), ("3", [b"some"]), (None, [b"some", "text"])],
)
def test_a_response_that_fails_halfway_is_aborted(
    length: str | None, pieces: list[bytes | Exception], caplog: pytest.LogCaptureFixture
) -> None:
    body = Pieces(*pieces)
    headers = (("Content-Length", length),) if length else ()
    w = wire(lambda _: Response(200, headers, body)).feed(get() + get())
    assert w.transport.aborted
    assert body.closed == 1
    assert w.loop.timers == 0
    assert len([r for r in caplog.records if r.levelno > logging.DEBUG]) == 1
    w.lose()
    assert body.closed == 1


# Bodies that take their time.


def test_an_iterator_is_sent_in_chunks_and_closed() -> None:
    body = Pieces(b"one", b"", b"two")
    reply = wire(lambda _: Response(body=body)).feed(get()).reply()
    assert reply.body == b"onetwo"
    assert reply.headers["transfer-encoding"] == "chunked"
    assert body.closed == 1


def test_a_short_response_is_written_in_one_piece() -> None:
    assert wire().feed(get()).transport.writes == 1
    assert wire(lambda _: Response(body=iter([b"a", b"b"]))).feed(get()).transport.writes == 1


def test_a_slow_client_stops_the_iterator() -> None:
    body = Pieces(*[b"x" * CHUNK] * 8)
    w = wire(lambda _: Response(body=body), room=CHUNK).feed(get())
    pulled = []
    while not body.closed:
        pulled.append(body.pulled)
        assert w.transport.drain() < 3 * CHUNK
        w.settle()
    assert pulled == [1, 2, 3, 4, 5, 6, 7, 8]
    assert w.reply().body == b"x" * 8 * CHUNK


def test_a_slow_client_of_large_bytes_gets_them_in_pieces() -> None:
    data = bytes(range(256)) * 2048
    w = wire(lambda _: Response(body=data), room=CHUNK).feed(get())
    while w.transport.drain():
        w.settle()
    assert w.reply().body == data


def test_a_long_body_lets_others_run() -> None:
    body = Pieces(*[b"x" * CHUNK] * 100)
    w = wire(lambda _: Response(body=body))
    w.protocol.data_received(get())
    turns = 0
    while not body.closed:
        before = body.pulled
        w.loop.turn()
        turns += 1
        assert body.pulled - before <= 4
    assert turns == 25


def test_pipelined_requests_wait_for_a_client_that_does_not_read() -> None:
    w = wire(room=0).feed(get() * 3)
    assert len(w.replies(["GET"])) == 1
    w.transport.drain()
    w.settle()
    assert len(w.replies(["GET"] * 2)) == 2


def test_nothing_is_read_while_a_response_is_under_way() -> None:
    stream = PushStream()
    w = wire(lambda r: Response(body=stream) if r.path == "/stream" else tell(r)).feed(get("/stream"))
    assert w.transport.reading
    w.feed(get("/next"), get("/last"))
    assert not w.transport.reading
    stream.send(b"x")
    stream.end()
    w.settle()
    assert w.transport.reading
    assert [r.body for r in w.replies(["GET"] * 3)] == [b"x", b"GET /next? ", b"GET /last? "]


# Pushed streams.


def test_a_stream_is_written_to_after_the_handler_returned() -> None:
    closed: list[bool] = []
    stream = PushStream(lambda: closed.append(True))
    stream.send(b"early ")
    w = wire(lambda _: Response(body=stream)).feed(get())
    assert b"early " in w.transport.written
    assert stream.send(b"later ")
    assert b"later " in w.transport.written
    assert not closed
    stream.end()
    assert (w.reply().body, closed) == (b"early later ", [True])
    assert not stream.send(b"too late")
    assert not w.transport.closed


def test_a_slow_client_makes_a_stream_drop_what_does_not_fit() -> None:
    stream = PushStream(max_pending=10)
    w = wire(lambda _: Response(body=stream), room=0).feed(get())
    assert [stream.send(b"123456") for _ in range(3)] == [True, False, False]
    w.transport.drain()
    assert [stream.send(b"abcdef") for _ in range(3)] == [True, False, False]
    stream.end()
    while w.transport.drain():
        pass
    assert w.reply().body == b"123456abcdef"


@pytest.mark.parametrize("how", ["lost", "eof", "stop", "abort"])
def test_a_stream_learns_once_that_it_is_over(how: str) -> None:
    closed: list[bool] = []
    stream = PushStream(lambda: closed.append(True))
    w = wire(lambda _: Response(body=stream), room=0).feed(get())
    w.transport.drain()
    if how == "lost":
        w.lose(ConnectionResetError())
    elif how == "eof":
        w.eof()
    elif how == "stop":
        w.protocol.close_when_idle()  # type: ignore[attr-defined]
    else:
        stream.send(b"x")
        w.loop.advance(LIMITS.timeout_write)
        assert w.transport.aborted
    w.transport.drain()
    w.settle()
    assert w.transport.closed
    assert closed == [True]
    assert stream.closed
    w.lose()
    assert closed == [True]


def test_a_stream_that_nobody_hears() -> None:
    stream = PushStream()
    wire(lambda _: Response(body=stream)).feed(get(method="HEAD"))
    assert stream.closed
    assert not stream.send(b"x")
