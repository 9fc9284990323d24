"""Whatever bytes arrive, in whatever pieces: the same answers, no exception, and nothing left behind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from helpers_web import Wire, get, post
from hypothesis import given, settings
from hypothesis import strategies as st

from tlsserver.protocols.http1 import Http1Protocol, Limits, Request, Response

if TYPE_CHECKING:
    from collections.abc import Iterable

# No stream below reaches the header limit: one that is too large and malformed as well may be refused for either.
LIMITS = Limits(header_bytes=8000, body_bytes=64)

bodies = st.binary(max_size=80)


def chunked(pieces: Iterable[bytes]) -> bytes:
    head = get("/", "Transfer-Encoding: chunked", method="POST")
    return head + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces if p) + b"0\r\n\r\n"


header_lines = st.sampled_from(
    [
        "Connection: close",
        "Expect: 100-continue",
        "Content-Length: 3",
        "Transfer-Encoding: chunked",
        "Upgrade: h2c",
        "X: " + "y" * 150,
        "Host: twice",
        "Bad Name: x",
        "",
    ]
)
requests = st.one_of(
    st.builds(
        get, st.sampled_from(["/", "/a?b", "*", "http://h/p", "bad"]), method=st.sampled_from(["GET", "HEAD", "PUT"])
    ),
    st.builds(post, bodies),
    st.builds(chunked, st.lists(bodies, max_size=3)),
    st.lists(header_lines, max_size=4).map(lambda lines: get("/", *lines)),
    st.just(b"GET / HTTP/1.0\r\n\r\n"),
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Some requests in a row, perhaps with some bytes of them replaced, removed or put in."""
    raw = b"".join(draw(st.lists(requests, min_size=1, max_size=4)))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(raw)))
        raw = raw[:at] + draw(st.binary(max_size=3)) + raw[at + draw(st.integers(0, 3)) :]
    return raw


@st.composite
def split(draw: st.DrawFn, raw: bytes) -> list[bytes]:
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(raw) - 1)), max_size=8)))
    return [piece for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True) if (piece := raw[start:end])]


def answer(request: Request) -> Response:
    text = f"{request.method} {request.target} ".encode() + request.body
    return Response(body=iter([text[:5], text[5:]]) if len(text) % 2 else text)


def outcome(pieces: list[bytes], room: int | None = None, limits: Limits = LIMITS) -> tuple[bytes, bool, bool]:
    """Return what a client sees that sends these pieces, then the end of the stream."""
    wire = Wire(Http1Protocol(answer, limits), room).feed(*pieces, b"")
    while wire.transport.drain():
        wire.settle()
    assert wire.transport.closed
    assert wire.loop.timers == 0
    return (
        re.sub(rb"Date: [^\r]*", b"Date:", bytes(wire.transport.written)),
        wire.transport.closed,
        wire.transport.aborted,
    )


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_answers_do_not_depend_on_how_the_bytes_were_split(data: st.DataObject) -> None:
    raw = data.draw(streams())
    whole = outcome([raw])
    assert outcome(data.draw(split(raw))) == whole
    assert outcome([raw[i : i + 1] for i in range(len(raw))]) == whole


@given(st.integers(1, 200), st.data())
@settings(deadline=None)
def test_the_header_limit_does_not_depend_on_the_split(size: int, data: st.DataObject) -> None:
    raw = get("/", "X: " + "y" * size) + get("/next")
    limits = Limits(header_bytes=100)
    whole = outcome([raw], limits=limits)
    assert outcome(data.draw(split(raw)), limits=limits) == whole
    assert whole[0].startswith(b"HTTP/1.1 200" if size <= 100 - len(get("/", "X: ")) else b"HTTP/1.1 431")


@given(streams(), st.integers(0, 2000))
@settings(deadline=None)
def test_answers_do_not_depend_on_how_fast_they_are_taken(raw: bytes, room: int) -> None:
    assert outcome([raw], room) == outcome([raw])


@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=5))
@settings(deadline=None)
def test_random_bytes_are_refused_or_answered(pieces: list[bytes]) -> None:
    written, _, aborted = outcome(pieces)
    assert not aborted
    assert written.startswith(b"HTTP/1.1 ")


@given(st.text(), st.text(), st.integers(), st.binary())
@settings(deadline=None)
def test_no_response_of_a_handler_can_be_split(name: str, value: str, status: int, body: bytes) -> None:
    wire = Wire(Http1Protocol(lambda _: Response(status, ((name, value),), body), LIMITS)).feed(
        get("/", "Connection: close")
    )
    raw = bytes(wire.transport.written)
    assert raw.startswith(b"HTTP/1.1 ")
    head = raw.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert all(re.fullmatch(rb"[!-9;-~]+:[^\r\n\0]*", line) for line in head[1:])
    assert len(head) <= 6
