"""When an answer is complete."""

from __future__ import annotations

import h11
import pytest

from tlsserver.bench.answer import Answer, make_request

HEAD = b"HTTP/1.1 200 OK\r\nDate: x\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        [HEAD + b"Content-Length: 5\r\n\r\nhello"],
        [HEAD + b"Content-Length: 0\r\n\r\n"],
        [HEAD + b"Content-Length: 5\r\n", b"\r\nhe", b"llo"],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"0\r\n\r\n"],
        [HEAD + b"\r\nhello", b""],
        [b"HTTP/1.1 103 Early Hints\r\n\r\n", HEAD + b"Content-Length: 1\r\n\r\n", b"x"],
    ],
    ids=["length", "nothing", "pieces", "chunked", "to-the-end", "interim"],
)
def test_complete_with_the_last_piece(pieces: list[bytes]) -> None:
    answer = Answer()
    for piece in pieces[:-1]:
        answer.feed(piece)
        assert not answer.is_complete
    answer.feed(pieces[-1])
    assert answer.is_complete
    assert answer.status == 200


@pytest.mark.parametrize(
    ("begin", "rest"), [(b"", b"SSH-2.0-x\r\n\r\n"), (HEAD + b"Content-Length: 5\r\n\r\nhell", b"")]
)
def test_what_is_no_answer(begin: bytes, rest: bytes) -> None:
    answer = Answer()
    if begin:
        answer.feed(begin)
    with pytest.raises(h11.RemoteProtocolError):
        answer.feed(rest)


def test_the_request_is_one() -> None:
    server = h11.Connection(h11.SERVER)
    server.receive_data(make_request("localhost:8443"))
    event = server.next_event()
    assert isinstance(event, h11.Request)
    assert (b"host", b"localhost:8443") in list(event.headers)
    assert isinstance(server.next_event(), h11.EndOfMessage)
