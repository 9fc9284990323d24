"""A key server that fails again and again: when it is asked no more, when again, and what does not count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine_shim import Status
from support.key_server import Conversation, KeyServer
from support.pair import STATIC_RSA
from support.remote_scene import Scene
from tlsserver.signers.keyless import ErrorCode, Message, Opcode, encode, error

if TYPE_CHECKING:
    from pathlib import Path

    from support.certificates import Certificates, Identity
    from support.key_server import Script

SILENT: Script = lambda *_: None  # noqa: E731 - a script is any function


def saying(code: ErrorCode) -> Script:
    return lambda conversation, request: conversation.send(encode(error(request.id, code), pad=False))


@pytest.fixture
def identity(certificates: Certificates) -> Identity:
    return certificates["p256"]


def test_breaker_opens_and_closes(identity: Identity, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        KeyServer([identity], tmp_path / "s", script=saying(ErrorCode.INTERNAL)) as server,
        Scene(identity, [server.address], breaker_failures=3, breaker_seconds=0.3) as scene,
    ):
        scene.until_up()
        pair = scene.begin()
        scene.until(lambda: scene.numbers().breaker == "open")
        assert len(server.requests) == 3
        server.script = Conversation.answer
        assert scene.end(pair) is Status.DONE
        assert scene.numbers().breaker == "closed"
        assert len(server.requests) == 4
    assert "has failed too often: asked again in 0.3 s" in caplog.text


def test_one_request_is_the_trial(identity: Identity, tmp_path: Path) -> None:
    with (
        KeyServer([identity], tmp_path / "s", script=saying(ErrorCode.INTERNAL)) as server,
        Scene(identity, [server.address], breaker_failures=3, breaker_seconds=0.1) as scene,
    ):
        scene.until_up()
        pairs = [scene.begin() for _ in range(5)]
        scene.until(lambda: scene.numbers().breaker == "open")
        server.script = SILENT
        before = len(server.requests)
        scene.until(lambda: len(server.requests) > before)
        for _ in range(20):
            scene.reactor.run_turn(0)
        assert len(server.requests) == before + 1
        server.script = Conversation.answer
        server.conversations[0].answer(server.requests[-1])
        assert [scene.end(pair) for pair in pairs] == [Status.DONE] * 5


def test_request_from_before_makes_no_room_for_a_second_trial(identity: Identity, tmp_path: Path) -> None:
    with (
        KeyServer([identity], tmp_path / "s", script=SILENT) as server,
        Scene(identity, [server.address], breaker_failures=1, breaker_seconds=0.05, attempt_timeout=30) as scene,
    ):
        scene.until_up()
        left = scene.begin()
        scene.until(lambda: len(server.requests) == 1)
        server.script = saying(ErrorCode.INTERNAL)
        scene.begin()
        scene.until(lambda: scene.numbers().breaker == "open")
        server.script = SILENT
        scene.until(lambda: len(server.requests) == 3)
        left.close()
        server.conversations[0].answer(server.requests[0])
        scene.until(lambda: scene.numbers().in_flight == 1)
        scene.begin()
        for _ in range(20):
            scene.reactor.run_turn(0.001)
        assert len(server.requests) == 3


def test_refused_decryptions_do_not_open_the_breaker(certificates: Certificates, tmp_path: Path) -> None:
    """A client chose what is to be decrypted, and could open it for all the others."""
    identity = certificates["rsa2048"]

    def refuse_decryptions(conversation: Conversation, request: Message) -> None:
        if request.opcode == Opcode.RSA_DECRYPT_RAW:
            saying(ErrorCode.CRYPTOGRAPHY)(conversation, request)
        else:
            conversation.answer(request)

    with (
        KeyServer([identity], tmp_path / "s", script=refuse_decryptions) as server,
        Scene(identity, [server.address], breaker_failures=2, breaker_seconds=60) as scene,
    ):
        scene.until_up()
        for _ in range(3):
            assert scene.end(scene.begin("1.2", STATIC_RSA)) is Status.ERROR
        assert scene.numbers().breaker == "closed"
        scene.handshake()
