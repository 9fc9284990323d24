"""HTTP/1.1 over a transport in memory, with a clock that tests move."""

from __future__ import annotations

import asyncio

import pytest
from helpers_web import Pieces, Wire, get, post, replies, serve_plain

from tlsserver.protocols.http1 import Http1Protocol, Limits, PushStream, Request, Response, protocol_factory
from tlsserver.protocols.stream import CHUNK

LIMITS = Limits(header_bytes=400, body_bytes=100)
CLOSE = "Connection: close"


def tell(request: Request) -> Response:
    """Answer with what was asked."""
    return Response(body=f"{request.method} {request.path}?{request.query} ".encode() + request.body)


def wire(handler: object = tell, limits: Limits = LIMITS, room: int | None = None) -> Wire:
    return Wire(Http1Protocol(handler, limits), room)  # type: ignore[arg-type]


# Requests and responses.


def test_answers_and_keeps_the_connection() -> None:
    w = wire().feed(get("/a?b=c"))
    reply = w.reply()
    assert (reply.status, reply.body) == (200, b"GET /a?b=c ")
    assert reply.headers["server"] == "tlsserver"
    assert reply.headers["date"].endswith(" GMT")
    assert reply.headers["content-length"] == "11"
    assert "connection" not in reply.headers
    w.feed(get("/second"))
    assert w.replies(["GET", "GET"])[1].body == b"GET /second? "
    assert not w.transport.closed


def test_pipelined_requests_are_answered_in_order_each_in_a_turn_of_its_own() -> None:
    w = wire()
    w.protocol.data_received(b"".join(get(f"/{n}") for n in range(3)))
    for turn in range(3):
        assert [r.body for r in w.replies(["GET"] * (turn + 1))] == [b"GET /%d? " % n for n in range(turn + 1)]
        w.loop.turn()
    assert not w.loop.soon


@pytest.mark.parametrize("ending", [CLOSE, "connection: Close"])
def test_closes_when_asked_to(ending: str) -> None:
    w = wire().feed(get("/", ending) + get("/never"))
    assert w.reply().headers["connection"] == "close"
    assert w.transport.closed
    assert w.loop.timers == 0


def test_http_1_0_closes_and_is_not_sent_chunks() -> None:
    w = wire(lambda _: Response(body=iter([b"one ", b"two"]))).feed(b"GET / HTTP/1.0\r\n\r\n")
    head, _, body = bytes(w.transport.written).partition(b"\r\n\r\n")
    assert body == b"one two"
    assert b"chunked" not in head
    assert b"Connection: close" in head
    assert w.transport.closed


def test_head_gets_the_headers_alone_and_the_body_is_closed_unread() -> None:
    body = Pieces(b"never")
    w = wire(lambda _: Response(200, (("Content-Length", "5"),), body)).feed(get(method="HEAD"), get(method="HEAD"))
    for reply in w.replies(["HEAD", "HEAD"]):
        assert (reply.headers["content-length"], reply.body) == ("5", b"")
    assert (body.pulled, body.closed) == (0, 2)


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body_have_none(status: int) -> None:
    reply = wire(lambda _: Response(status, (), b"left out")).feed(get()).reply()
    assert (reply.status, reply.body) == (status, b"")
    assert "content-length" not in reply.headers


def test_a_request_body_by_length_and_in_chunks() -> None:
    chunked = (
        get("/", "Transfer-Encoding: chunked", method="POST") + b"2\r\nab\r\n3;x=y\r\ncde\r\n0\r\nTrailer: t\r\n\r\n"
    )
    w = wire().feed(post(b"hello") + chunked)
    assert [r.body for r in w.replies(["POST", "POST"])] == [b"POST /? hello", b"POST /? abcde"]


def test_headers_of_a_request() -> None:
    seen: list[Request] = []

    def handler(request: Request) -> Response:
        seen.append(request)
        return Response()

    wire(handler).feed(get("/", "Accept: a", "X-Name: \xe9", "accept: b"))
    assert seen[0].header("ACCEPT") == "a, b"
    assert seen[0].header("x-name") == "\xe9"
    assert seen[0].header("missing") is None
    assert seen[0].transport.get_extra_info("reactor") is not None


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/a%20b?q=%20", "/a b", "q=%20"),
        ("//double", "//double", ""),
        ("http://host/p?q", "/p", "q"),
        ("https://host", "/", ""),
        ("http://host?q", "/", "q"),
        ("*", "*", ""),
        ("/%ff", "/\udcff", ""),
    ],
)
def test_targets(target: str, path: str, query: str) -> None:
    seen: list[tuple[str, str]] = []

    def handler(request: Request) -> Response:
        seen.append((request.path, request.query))
        return Response()

    wire(handler).feed(get(target, method="OPTIONS"))
    assert seen == [(path, query)]


# Expect: 100-continue.


def test_continue_is_sent_before_the_body_comes() -> None:
    w = wire().feed(get("/", "Content-Length: 3", "Expect: 100-continue", method="POST"))
    assert bytes(w.transport.written) == b"HTTP/1.1 100 Continue\r\n\r\n"
    reply = w.feed(b"abc").reply("POST")
    assert (reply.interim, reply.body) == ([100], b"POST /? abc")


def test_continue_is_not_sent_for_a_body_that_is_refused() -> None:
    w = wire().feed(get("/", "Content-Length: 101", "Expect: 100-continue", method="POST"))
    assert (w.reply("POST").status, w.reply("POST").interim) == (413, [])


# Refusals.

CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (get("relative"), 400),
        (get("ftp://host/"), 400),
        (get("http://[bad/"), 400),
        (get("/", "Host: y"), 400),
        (get("/", "Bad Name: y"), 400),
        (get("/", "Space : y"), 400),
        (get("/", "Content-Length: +3"), 400),
        (get("/", "Content-Length: -3"), 400),
        (get("/", "Content-Length: 3", "Content-Length: 4"), 400),
        (get("/", "Content-Length: 3", CHUNKED) + b"0\r\n\r\n", 400),
        (get("/", CHUNKED, "Content-Length: 3") + b"0\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (get("/", CHUNKED) + b"zz\r\n", 400),
        (get("/", CHUNKED) + b"-1\r\n", 400),
        (get("/", "Transfer-Encoding: gzip, chunked"), 501),
        (get("host:443", method="CONNECT"), 501),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (post(b"x" * 101), 413),
        (get("/", CHUNKED) + b"65\r\n" + b"x" * 101 + b"\r\n0\r\n\r\n", 413),
        (get("/", "X: " + "y" * 400), 431),
        (b"GET /" + b"y" * 400, 431),
    ],
)
def test_a_bad_request_gets_a_clear_answer_and_the_connection_ends(raw: bytes, status: int) -> None:
    w = wire().feed(raw, b"").feed(get("/never"))
    reply = w.reply()
    assert reply.status == status
    assert reply.body.startswith(b"%d " % status)
    assert reply.headers["connection"] == "close"
    assert w.transport.closed
    assert not w.transport.aborted
    assert w.loop.timers == 0


def test_a_good_request_before_a_bad_one_is_answered() -> None:
    w = wire().feed(get() + b"bad\r\n\r\n")
    assert [r.status for r in w.replies(["GET", "GET"])] == [200, 400]


@pytest.mark.parametrize("cut", [0, 1, 200, 399])
def test_the_header_limit_does_not_depend_on_the_split(cut: int) -> None:
    def request(size: int) -> bytes:
        bare = len(get("/", "X: "))
        return get("/", "X: " + "y" * (size - bare))

    for size, status in ((400, 200), (401, 431)):
        raw = request(size)
        assert len(raw) == size
        assert wire().feed(*filter(None, (raw[:cut], raw[cut:]))).reply().status == status


def test_a_refused_body_is_read_to_its_end_before_closing() -> None:
    w = wire().feed(get("/", "Content-Length: 300", method="POST"))
    assert w.reply("POST").status == 413
    w.feed(b"x" * 299)
    assert not w.transport.closed
    w.feed(b"x" + get("/never"))
    assert w.transport.closed
    assert w.reply("POST").status == 413


@pytest.mark.parametrize("ending", ["silence", "eof", "garbage", "stop"])
def test_a_refused_body_is_not_waited_for_longer_than_that(ending: str) -> None:
    w = wire().feed(get("/", CHUNKED, method="POST") + b"65\r\n" + b"x" * 101)
    assert w.reply("POST").status == 413
    w.loop.advance(LIMITS.timeout_linger - 0.1)
    assert not w.transport.closed
    if ending == "silence":
        w.loop.advance(0.2)
    elif ending == "eof":
        w.eof()
    elif ending == "garbage":
        w.feed(b"neither a chunk nor its end")
    else:
        w.protocol.close_when_idle()  # type: ignore[attr-defined]
    assert w.transport.closed
    assert w.reply("POST").status == 413


# Ends of connections.


def test_a_client_that_sends_no_more_still_gets_its_answers() -> None:
    w = wire(lambda _: Response(body=b"x" * 4 * CHUNK), room=CHUNK).feed(get() + get(), b"")
    while w.transport.drain():
        w.settle()
    assert [len(r.body) for r in w.replies(["GET", "GET"])] == [4 * CHUNK] * 2
    assert w.transport.closed


def test_eof_between_requests_closes() -> None:
    assert wire().eof().transport.closed
    assert wire().feed(get()).eof().transport.closed


def test_eof_within_a_request_is_a_bad_request() -> None:
    w = wire().feed(b"GET / HT", b"")
    assert w.reply().status == 400
    assert w.transport.closed


def test_close_when_idle() -> None:
    idle = wire()
    idle.protocol.close_when_idle()  # type: ignore[attr-defined]
    assert idle.transport.closed
    assert not idle.transport.written


def test_close_when_idle_waits_for_the_request_that_has_begun() -> None:
    w = wire().feed(get()[:10])
    w.protocol.close_when_idle()  # type: ignore[attr-defined]
    assert not w.transport.closed
    w.feed(get()[10:] + get())
    assert w.reply().headers["connection"] == "close"
    assert w.transport.closed


def test_close_when_idle_waits_for_the_response() -> None:
    w = wire(lambda _: Response(body=iter([b"x" * CHUNK] * 3)), room=0).feed(get() + get())
    w.protocol.close_when_idle()  # type: ignore[attr-defined]
    assert not w.transport.closed
    while w.transport.drain():
        w.settle()
    assert len(w.reply().body) == 3 * CHUNK
    assert w.transport.closed


# Deadlines.


def test_slow_headers_get_a_408_however_steadily_they_come() -> None:
    w = wire()
    for byte in get()[:9]:
        w.feed(bytes([byte]))
        w.loop.advance(1)
    assert not w.transport.written
    w.loop.advance(1)
    assert w.reply().status == 408
    assert w.transport.closed


def test_a_slow_body_gets_a_408() -> None:
    w = wire().feed(post(b"abc")[:-1])
    w.loop.advance(LIMITS.timeout_body)
    assert w.reply("POST").status == 408
    w.loop.advance(LIMITS.timeout_linger)
    assert w.transport.closed


def test_a_client_that_asks_nothing_is_closed_without_a_word() -> None:
    w = wire()
    w.loop.advance(LIMITS.timeout_keep_alive)
    assert w.transport.closed
    assert not w.transport.written


def test_the_time_between_requests_starts_anew() -> None:
    w = wire()
    for _ in range(3):
        w.loop.advance(LIMITS.timeout_keep_alive - 0.1)
        w.feed(get())
    assert not w.transport.closed
    w.loop.advance(LIMITS.timeout_keep_alive)
    assert w.transport.closed


def test_a_client_that_takes_nothing_is_aborted() -> None:
    body = Pieces(*[b"x" * CHUNK] * 8)
    w = wire(lambda _: Response(body=body), room=0).feed(get())
    w.loop.advance(LIMITS.timeout_write - 1)
    w.transport.drain()
    w.loop.advance(LIMITS.timeout_write - 1)
    assert not w.transport.aborted
    w.loop.advance(1)
    assert w.transport.aborted
    assert body.closed == 1


def test_a_response_has_no_deadline_while_the_client_takes_it() -> None:
    stream = PushStream()
    w = wire(lambda _: Response(body=stream)).feed(get())
    w.loop.advance(10_000)
    assert not w.transport.closed
    assert w.loop.timers == 0


def test_nothing_is_left_when_the_connection_is_lost() -> None:
    for raw in (b"", b"GET", post(b"abc")[:-1], get()):
        w = wire().feed(*filter(None, [raw]))
        w.lose()
        assert w.loop.timers == 0


# The same over asyncio.


def test_over_asyncio() -> None:
    async def talk() -> bytes:
        server = await serve_plain(protocol_factory(lambda r: Response(body=iter([r.body, b"!" * 300_000]))))
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(post(b"one") + post(b"two"))
            writer.write_eof()
            raw = await reader.read()
            writer.close()
            await writer.wait_closed()
            return raw

    one, two = replies(asyncio.run(talk()), ["POST", "POST"])
    assert one.body == b"one" + b"!" * 300_000
    assert two.body == b"two" + b"!" * 300_000
