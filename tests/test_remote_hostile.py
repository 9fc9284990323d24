"""A key server that does anything but answer: at the worst one handshake is lost, and mostly not even that.

Each script misbehaves with the first request and is honest afterwards, so what was asked first is asked again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from engine_shim import Status
from support.asking import said
from support.key_server import Conversation, KeyServer
from support.remote_scene import Scene
from tlsserver.signers.keyless import ErrorCode, Message, Opcode, encode, error, ping, pong, success

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.certificates import Certificates

    Misdeed = Callable[[Conversation, Message], object]

# Seconds. What never comes is waited for so long.
QUICK = {"attempt_timeout": 0.15, "ping_interval": 0.1, "ping_timeout": 0.15, "breaker_seconds": 0.05}


@pytest.fixture(autouse=True)
def no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a key server does, no exception comes as far as the loop."""
    yield
    assert [record for record in caplog.records if record.exc_info] == []


def framed(data: bytes, length: int, number: int) -> bytes:
    return b"\x01\x00" + length.to_bytes(2, "big") + number.to_bytes(4, "big") + data


def once(misdeed: Misdeed) -> Misdeed:
    def script(conversation: Conversation, request: Message) -> None:
        if len(conversation.server.requests) == 1:
            misdeed(conversation, request)
        else:
            conversation.answer(request)

    return script


def twice(conversation: Conversation, request: Message) -> None:
    conversation.send(conversation.server.answer_to(request) * 2)


def another_number(conversation: Conversation, request: Message) -> None:
    conversation.send(encode(success(request.id + 1000, b"x"), pad=False))


def answered_with(make: Callable[[Message], bytes]) -> Misdeed:
    return lambda conversation, request: conversation.send(make(request))


def hang_up_after(make: Callable[[Message], bytes]) -> Misdeed:
    def script(conversation: Conversation, request: Message) -> None:
        conversation.send(make(request))
        conversation.close()

    return script


MISDEEDS: dict[str, Misdeed] = {
    "rubbish": answered_with(lambda _: b"\xde\xad\xbe\xef" * 100),
    "http": answered_with(lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "nothing": lambda _, __: None,
    "half a header": answered_with(lambda _: b"\x01\x00\x00"),
    "half a frame": answered_with(lambda request: framed(b"\x11\x00\x01\xf0\x12\x00", 70, request.id)),
    "half a frame and the end": hang_up_after(lambda request: framed(b"\x11\x00\x01\xf0\x12\x00", 70, request.id)),
    "the longest frame, half": answered_with(lambda request: framed(bytes(30_000), 0xFFFF, request.id)),
    "the longest frame": answered_with(lambda request: framed(bytes(0xFFFF), 0xFFFF, request.id)),
    "lengths of four gigabytes": answered_with(lambda _: b"\x01\x00" + b"\xff" * 64),
    "an item beyond its frame": answered_with(lambda request: framed(b"\x12\xff\xff", 3, request.id)),
    "a frame without an opcode": answered_with(lambda request: framed(b"", 0, request.id)),
    "an empty answer": answered_with(lambda request: encode(success(request.id, b""), pad=False)),
    "a long answer": answered_with(lambda request: encode(success(request.id, bytes(60_000)), pad=False)),
    "zeros": answered_with(lambda request: encode(success(request.id, bytes(71)), pad=False)),
    "a request": answered_with(lambda request: encode(Message(request.id, Opcode.EC_SIGN_SHA256), pad=False)),
    "a ping": answered_with(lambda request: encode(ping(request.id), pad=False)),
    "a pong": answered_with(lambda request: encode(pong(request.id), pad=False)),
    "pongs": answered_with(lambda _: encode(pong(77), pad=False) * 10_000),
    "an unknown opcode": answered_with(lambda request: encode(Message(request.id, 0x77), pad=False)),
    "an answer to nothing": another_number,
    "an error without a code": answered_with(lambda request: encode(Message(request.id, Opcode.ERROR), pad=False)),
    "internal error": answered_with(lambda request: encode(error(request.id, ErrorCode.INTERNAL), pad=False)),
    "read error": answered_with(lambda request: encode(error(request.id, ErrorCode.READ), pad=False)),
    "the end": lambda conversation, _: conversation.close(),
}


@pytest.mark.parametrize("name", MISDEEDS)
def test_request_is_asked_again(certificates: Certificates, tmp_path: Path, name: str) -> None:
    identity = certificates["p256"]
    with (
        KeyServer([identity], tmp_path / "s", script=once(MISDEEDS[name])) as server,
        Scene(identity, [server.address], **QUICK) as scene,
    ):
        scene.handshake()
        scene.handshake()
        numbers = scene.numbers()
        assert (numbers.performed, numbers.in_flight) == (2, 0)
        assert numbers.failed == numbers.retries
        assert len(scene.pool._waiting) == 0


def test_answer_that_comes_twice_costs_the_connection_alone(certificates: Certificates, tmp_path: Path) -> None:
    identity = certificates["p256"]
    with (
        KeyServer([identity], tmp_path / "s", script=once(twice)) as server,
        Scene(identity, [server.address], **QUICK) as scene,
    ):
        scene.handshake()
        scene.until(lambda: len(server.conversations) == 2)
        scene.handshake()
        assert scene.numbers().performed == 2


def test_signature_of_another_request(certificates: Certificates, tmp_path: Path) -> None:
    """Both get the other's answer; both are asked again, and the rest goes on."""
    identity = certificates["p256"]

    def swap(conversation: Conversation, request: Message) -> None:
        if len(conversation.requests) == 2:
            one, other = conversation.requests
            for mine, right in ((one, other), (other, one)):
                answer = bytearray(conversation.server.answer_to(right))
                answer[4:8] = mine.id.to_bytes(4, "big")
                conversation.send(bytes(answer))
        elif len(conversation.requests) > 2:
            conversation.answer(request)

    with KeyServer([identity], tmp_path / "s", script=swap) as server, Scene(identity, [server.address]) as scene:
        scene.until_up()
        pairs = [scene.begin(), scene.begin()]
        assert [scene.end(pair) for pair in pairs] == [Status.DONE] * 2
        assert (scene.numbers().failed, scene.numbers().retries) == (2, 2)
        assert scene.signer.signer_times().wrong == 2


def test_end_at_every_byte_of_the_answer(certificates: Certificates, tmp_path: Path) -> None:
    identity = certificates["p256"]
    cuts = iter(range(81))

    def cut(conversation: Conversation, request: Message) -> None:
        if conversation.number % 2:
            conversation.send(conversation.server.answer_to(request)[: next(cuts)])
            conversation.close()
        else:
            conversation.answer(request)
            conversation.close()

    with KeyServer([identity], tmp_path / "s", script=cut) as server:
        with Scene(identity, [server.address], breaker_failures=1000) as scene:
            for _ in range(81):
                link = scene.pool.peers[0].links[0]
                link._delay = 0.001
                scene.handshake()
        assert next(cuts, None) is None


def test_answer_byte_by_byte(certificates: Certificates, tmp_path: Path) -> None:
    identity = certificates["p256"]

    def drip(conversation: Conversation, request: Message) -> None:
        for byte in conversation.server.answer_to(request):
            conversation.send(bytes((byte,)))

    with KeyServer([identity], tmp_path / "s", script=drip) as server, Scene(identity, [server.address]) as scene:
        scene.handshake()


def test_answer_that_comes_too_late_is_used_if_it_is_the_first(certificates: Certificates, tmp_path: Path) -> None:
    identity = certificates["p256"]

    def late(conversation: Conversation, _: Message) -> None:
        if len(conversation.requests) == 2:  # asked again: it is the first one that is answered
            conversation.answer(conversation.requests[0])

    with (
        KeyServer([identity], tmp_path / "s", script=late) as server,
        Scene(identity, [server.address], attempt_timeout=0.05) as scene,
    ):
        scene.handshake()
        assert scene.numbers().performed == 1
        assert len(server.conversations) == 1


def test_answer_after_the_client_has_left(certificates: Certificates, tmp_path: Path) -> None:
    identity = certificates["p256"]
    with (
        KeyServer([identity], tmp_path / "s", script=lambda *_: None) as server,
        Scene(identity, [server.address]) as scene,
    ):
        scene.until_up()
        pair = scene.begin()
        scene.until(lambda: server.requests)
        pair.close()
        assert scene.numbers().in_flight == 1  # its place is taken until then
        server.conversations[0].answer(server.requests[0])
        scene.until(lambda: scene.numbers().in_flight == 0)
        server.script = Conversation.answer
        scene.handshake()
        assert len(server.conversations) == 1
        assert scene.numbers().failed == 0


def test_both_answers_of_a_request_that_was_asked_twice(certificates: Certificates, tmp_path: Path) -> None:
    identity = certificates["p256"]

    def both(conversation: Conversation, request: Message) -> None:
        if len(conversation.requests) == 2:
            for one in conversation.requests:
                conversation.answer(one)
        elif len(conversation.requests) > 2:
            conversation.answer(request)

    with (
        KeyServer([identity], tmp_path / "s", script=both) as server,
        Scene(identity, [server.address], attempt_timeout=0.05) as scene,
    ):
        scene.handshake()
        scene.handshake()
        assert len(server.conversations) == 1


def test_no_answer_ever(certificates: Certificates, tmp_path: Path) -> None:
    """It answers pings, so it is up; the op's deadline ends the handshake, and what it owes is bounded."""
    identity = certificates["p256"]
    with (
        KeyServer([identity], tmp_path / "s", script=lambda *_: None) as server,
        Scene(identity, [server.address], **QUICK, deadline=1.0) as scene,
    ):
        pair = scene.begin()
        assert scene.end(pair) is Status.ERROR
        assert "in time" in said(pair)
        scene.until(lambda: scene.numbers().in_flight == 0)
        assert 1 < scene.numbers().taken <= 8


def test_wrong_answers_for_ever_do_not_keep_it_busy(certificates: Certificates, tmp_path: Path) -> None:
    identity = certificates["p256"]

    def wrong(conversation: Conversation, request: Message) -> None:
        conversation.send(encode(success(request.id, b"\x30\x00"), pad=False))

    with (
        KeyServer([identity], tmp_path / "s", script=wrong) as server,
        Scene(identity, [server.address], **QUICK) as scene,
    ):
        pair = scene.begin()
        assert scene.end(pair) is Status.ERROR
        assert f"signer {server.address}: its answer is wrong" in said(pair)
        assert len(server.requests) == 8


def test_nobody_answers_pings(certificates: Certificates, tmp_path: Path) -> None:
    """It never was up, so it never got a request."""
    identity = certificates["p256"]
    with (
        KeyServer([identity], tmp_path / "s", on_ping=lambda *_: None) as server,
        Scene(identity, [server.address], **QUICK) as scene,
    ):
        scene.until(lambda: scene.numbers().state == "down")
        server.on_ping = KeyServer([]).on_ping
        scene.handshake()
        assert len(server.conversations) >= 2


def test_silence_is_noticed_by_a_ping(certificates: Certificates, tmp_path: Path) -> None:
    """What is under way on a connection that died silently is asked elsewhere, though nothing tells of its end."""
    identity = certificates["p256"]
    with (
        KeyServer([identity], tmp_path / "1", script=lambda *_: None) as silent,
        KeyServer([identity], tmp_path / "2") as other,
        Scene(
            identity,
            [silent.address, other.address],
            attempt_timeout=30,
            ping_interval=0.05,
            ping_timeout=0.05,
            deadline=60,
        ) as scene,
    ):
        scene.until_up(0, 1)
        silent.on_ping = lambda *_: None
        pairs = [scene.begin() for _ in range(6)]
        assert [scene.end(pair) for pair in pairs] == [Status.DONE] * 6
        assert scene.numbers(0).retries >= 1
        assert scene.numbers(0).state == "down"


def test_flood_of_answers_does_not_hold_the_loop(
    certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It sends what is not asked for as quickly as it can, on each connection; the log tells it once."""
    identity = certificates["p256"]
    flood = encode(pong(77), pad=False) * 5000

    def send_flood(conversation: Conversation, request: Message) -> None:
        conversation.send(encode(pong(request.id), pad=False) + flood)

    with (
        KeyServer([identity], tmp_path / "s", on_ping=send_flood) as server,
        caplog.at_level(logging.WARNING),
        Scene(identity, [server.address], ping_timeout=0.5) as scene,
    ):
        scene.until(lambda: len(server.conversations) >= 4)
    told = [record.message for record in caplog.records if "breaks the protocol" in record.message]
    assert 1 <= len(told) <= 4


def test_who_does_not_read_is_given_up(certificates: Certificates, tmp_path: Path) -> None:
    identity = certificates["p256"]

    def stop_reading(conversation: Conversation, _: Message) -> None:
        conversation.server.wait(lambda: len(conversation.server.conversations) > 1)

    with (
        KeyServer([identity], tmp_path / "s", script=once(stop_reading)) as server,
        Scene(identity, [server.address], **{**QUICK, "attempt_timeout": 30}) as scene,
    ):
        scene.handshake()
        assert len(server.conversations) == 2
