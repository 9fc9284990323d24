"""Several key servers, and none: who is asked, who is asked next, and what waits."""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from engine_shim import Status, ThreadEngine
from support.asking import said
from support.key_server import Conversation, KeyServer
from support.remote_scene import Scene
from tlsserver.reactor import Reactor
from tlsserver.signers.keyless import ErrorCode, Message, encode, error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.certificates import Certificates, Identity
    from support.key_server import Script
    from support.pair import Pair

QUICK = {"attempt_timeout": 0.15, "ping_interval": 0.1, "ping_timeout": 0.15, "breaker_seconds": 0.05}
SILENT: Script = lambda *_: None  # noqa: E731 - a script is any function


def saying(code: ErrorCode) -> Script:
    return lambda conversation, request: conversation.send(encode(error(request.id, code), pad=False))


@pytest.fixture
def identity(certificates: Certificates) -> Identity:
    return certificates["p256"]


@contextlib.contextmanager
def two(identity: Identity, folder: Path, *scripts: Script | None) -> Iterator[tuple[KeyServer, KeyServer]]:
    one, other = scripts or (None, None)
    with (
        KeyServer([identity], folder / "1", script=one) as first,
        KeyServer([identity], folder / "2", script=other) as second,
    ):
        yield first, second


def asked(scene: Scene, pair: Pair) -> bool:
    return pair.signalled() or scene.numbers(0).in_flight > 0


def test_both_are_asked_in_turn(identity: Identity, tmp_path: Path) -> None:
    with two(identity, tmp_path) as servers, Scene(identity, [one.address for one in servers]) as scene:
        scene.until_up(0, 1)
        for _ in range(6):
            scene.handshake()
        assert [len(one.requests) for one in servers] == [3, 3]


def test_the_least_loaded_is_asked(identity: Identity, tmp_path: Path) -> None:
    with two(identity, tmp_path, SILENT, None) as servers, Scene(identity, [one.address for one in servers]) as scene:
        scene.until_up(0, 1)
        slow: list[Pair] = []
        while not slow:  # one that the slow one has
            pair = scene.begin()
            scene.until(partial(asked, scene, pair))
            slow += [pair] if scene.numbers(0).in_flight else []
        before = len(servers[1].requests)
        for _ in range(5):
            scene.handshake()
        assert (len(servers[0].requests), len(servers[1].requests)) == (1, before + 5)


@pytest.mark.parametrize(
    "script",
    [
        saying(ErrorCode.INTERNAL),
        saying(ErrorCode.CRYPTOGRAPHY),
        saying(ErrorCode.BAD_OPCODE),
        saying(ErrorCode.KEY_NOT_FOUND),
        SILENT,
        lambda conversation, _: conversation.close(),
    ],
    ids=["internal", "cryptography", "bad opcode", "no key", "silent", "hangs up"],
)
def test_the_other_one_does_it(identity: Identity, tmp_path: Path, script: Script) -> None:
    with (
        two(identity, tmp_path, script, None) as servers,
        Scene(identity, [one.address for one in servers], **QUICK) as scene,
    ):
        scene.until_up(0, 1)
        for _ in range(6):
            scene.handshake()
        assert scene.numbers(1).performed == 6
        assert scene.numbers(0).retries == scene.numbers(0).failed >= 1


def test_who_lacks_the_key_is_not_asked_again(identity: Identity, tmp_path: Path) -> None:
    with (
        two(identity, tmp_path, saying(ErrorCode.KEY_NOT_FOUND), None) as servers,
        Scene(identity, [one.address for one in servers]) as scene,
    ):
        scene.until_up(0, 1)
        for _ in range(6):
            scene.handshake()
        assert len(servers[0].requests) == 1
        assert scene.numbers(0).breaker == "closed"


def test_who_comes_back_may_have_the_key(identity: Identity, tmp_path: Path) -> None:
    with (
        KeyServer([identity], tmp_path / "s", script=saying(ErrorCode.KEY_NOT_FOUND)) as server,
        Scene(identity, [server.address]) as scene,
    ):
        scene.until_up()
        assert scene.end(scene.begin()) is Status.ERROR
        server.stop()
        scene.until(lambda: scene.numbers().state == "down")
        server.script = Conversation.answer
        server.start()
        scene.until_up()
        scene.handshake()


def test_key_that_nobody_has(identity: Identity, tmp_path: Path) -> None:
    with two(identity, tmp_path) as servers, Scene(identity, [one.address for one in servers]) as scene:
        for one in servers:
            one.keys.clear()
        scene.until_up(0, 1)
        pair = scene.begin()
        assert scene.end(pair) is Status.ERROR
        assert "no such key" in said(pair)
        pair = scene.begin()
        assert scene.end(pair) is Status.ERROR
        assert f"no signer has the key {scene.key.key_id.hex()}" in said(pair)
        assert [len(one.requests) for one in servers] == [1, 1]


def test_requests_wait_for_who_returns(identity: Identity, tmp_path: Path) -> None:
    server = KeyServer([identity], tmp_path / "s")
    with Scene(identity, [server.address]) as scene:
        pairs = [scene.begin() for _ in range(5)]
        scene.until(lambda: scene.numbers().state == "down")
        assert scene.signer.statistics().queued == 5  # not taken: the queue is bounded
        with server:
            assert [scene.end(pair) for pair in pairs] == [Status.DONE] * 5


def test_requests_under_way_are_asked_again_after_the_return(identity: Identity, tmp_path: Path) -> None:
    server = KeyServer([identity], tmp_path / "s", script=SILENT)
    with server, Scene(identity, [server.address], breaker_seconds=0.05) as scene:
        scene.until_up()
        pairs = [scene.begin() for _ in range(5)]
        scene.until(lambda: len(server.requests) == 5)
        server.stop()
        scene.until(lambda: scene.numbers().state == "down")
        server.script = Conversation.answer
        server.start()
        assert [scene.end(pair) for pair in pairs] == [Status.DONE] * 5
        assert scene.numbers().retries == 5


def test_who_waits_costs_nothing(identity: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though there are more of them than one turn has time for, each is looked at once, and then the loop rests."""
    server = KeyServer([identity], tmp_path / "s", script=SILENT)
    with server, Scene(identity, [server.address], breaker_seconds=0.05) as scene:
        scene.until_up()
        pairs = [scene.begin() for _ in range(20)]
        scene.until(lambda: len(server.requests) == 20)
        with monkeypatch.context() as patch:
            patch.setattr("tlsserver.signers.remote_pool._TURN_SECONDS", 1e-6)
            patch.setattr("tlsserver.signers.remote_pool._SWEEP_SECONDS", 60.0)
            server.stop()
            scene.until(lambda: len(scene.pool._waiting) == 20 and not scene.pool._is_due)
        server.script = Conversation.answer
        server.start()
        assert [scene.end(pair) for pair in pairs] == [Status.DONE] * 20


def test_deadline_ends_the_wait(identity: Identity, tmp_path: Path) -> None:
    with Scene(identity, [f"unix:{tmp_path}/nobody"], deadline=0.1) as scene:
        pair = scene.begin()
        assert scene.end(pair) is Status.ERROR
        assert "in time" in said(pair)


@pytest.mark.parametrize("way", ["nobody", "refuses", "silent"])
def test_fallback(identity: Identity, tmp_path: Path, way: str) -> None:
    """A key of this process is used at once when all are down, and when there is nobody else to ask."""
    server = KeyServer([identity], tmp_path / "s", script=SILENT if way == "silent" else saying(ErrorCode.BAD_OPCODE))
    with ThreadEngine(1) as threads, contextlib.ExitStack() as stack:
        fallback = threads.load_key(identity.key)
        if way != "nobody":
            stack.enter_context(server)
        options = {**QUICK, "breaker_failures": 2, "breaker_seconds": 60}
        with Scene(identity, [server.address], **options, fallback=fallback) as scene:
            if way == "silent":
                scene.until_up()
            scene.handshake()
            scene.handshake()
            assert scene.numbers().fallbacks == 2
            if way == "silent":
                assert len(server.requests) == 2  # the breaker is open since


def test_fallback_is_for_its_own_key(certificates: Certificates, identity: Identity, tmp_path: Path) -> None:
    with ThreadEngine(1) as threads:
        fallback = threads.load_key(certificates["rsa2048"].key)
        with Scene(identity, [f"unix:{tmp_path}/nobody"], fallback=fallback, deadline=0.2) as scene:
            assert scene.end(scene.begin()) is Status.ERROR
            assert scene.numbers().fallbacks == 0


def test_what_the_protocol_does_not_have_fails_with_the_reason(certificates: Certificates, tmp_path: Path) -> None:
    identity = certificates["rsa2048"]
    with KeyServer([identity], tmp_path / "s") as server, Scene(identity, [server.address]) as scene:
        scene.until_up()
        pair = scene.begin()
        request = scene.signer.take()
        assert request is not None
        request.padding, request.digest_name = "pss", "SHA224"
        scene.pool._accept(request)
        assert scene.end(pair) is Status.ERROR
        assert "the keyless protocol has no signature for RSA, pss, SHA224" in said(pair)


def test_no_more_under_way_than_allowed(identity: Identity, tmp_path: Path) -> None:
    """The rest stays in the engine's queue, which is bounded."""
    with (
        KeyServer([identity], tmp_path / "s", script=SILENT) as server,
        Scene(identity, [server.address], most_in_flight=2, connections=2) as scene,
    ):
        scene.until(lambda: all(link.state == "up" for link in scene.pool.peers[0].links))
        pairs = [scene.begin() for _ in range(7)]
        scene.until(lambda: len(server.requests) == 4)
        for _ in range(20):
            scene.reactor.run_turn(0)
        assert (scene.numbers().in_flight, scene.signer.statistics().queued) == (4, 3)
        assert [len(one.requests) for one in server.conversations] == [2, 2]
        server.script = Conversation.answer
        for conversation in server.conversations:
            for request in tuple(conversation.requests):
                conversation.answer(request)
        assert [scene.end(pair) for pair in pairs] == [Status.DONE] * 7


def test_answers_in_any_order(identity: Identity, tmp_path: Path) -> None:
    def backwards(conversation: Conversation, _: Message) -> None:
        if len(conversation.requests) == 20:
            for request in reversed(conversation.requests):
                conversation.answer(request)

    with KeyServer([identity], tmp_path / "s", script=backwards) as server, Scene(identity, [server.address]) as scene:
        pairs = [scene.begin() for _ in range(20)]
        assert [scene.end(pair) for pair in pairs] == [Status.DONE] * 20


def test_leaving_gives_what_is_under_way_to_another_loop(identity: Identity, tmp_path: Path) -> None:
    with KeyServer([identity], tmp_path / "s", script=SILENT) as server, Scene(identity, [server.address]) as scene:
        scene.until_up()
        pair = scene.begin()
        scene.until(lambda: server.requests)
        other = Reactor()
        leave = scene.signer.join(other)
        try:
            scene.leave()
            scene.leave()
            server.script = Conversation.answer
            while not pair.signalled():
                other.run_turn(0.01)
            assert pair.until_parked() is Status.DONE
            assert scene.numbers().performed == 1
            assert scene.numbers().taken == 2
        finally:
            leave()
            other.close()
        assert scene.numbers().in_flight == 0


@pytest.mark.parametrize("when", ["connecting", "up", "waiting", "under way", "down"])
def test_leaving_at_any_time(identity: Identity, tmp_path: Path, when: str) -> None:
    server = KeyServer([identity], tmp_path / "s", script=SILENT)
    with contextlib.ExitStack() as stack:
        if when != "down":
            stack.enter_context(server)
        scene = stack.enter_context(Scene(identity, [server.address]))
        if when in ("up", "under way"):
            scene.until_up()
        if when == "down":
            scene.until(lambda: scene.numbers().state == "down")
        pair = None if when in ("connecting", "up") else scene.begin()
        if when == "under way":
            scene.until(lambda: server.requests)
        scene.leave()
        if when == "under way":
            assert pair is not None
            pair.wait()
            assert pair.until_parked() is Status.ERROR
            assert "the loop that asked the signers has ended" in said(pair)
        for _ in range(5):
            scene.reactor.run_turn(0)
        assert scene.numbers().state == "down"


def test_closing_on_another_thread_ends_the_loops_part(identity: Identity, tmp_path: Path) -> None:
    with KeyServer([identity], tmp_path / "s", script=SILENT) as server, Scene(identity, [server.address]) as scene:
        scene.until_up()
        pair = scene.begin()
        scene.until(lambda: server.requests)
        closing = threading.Thread(target=scene.signer.close)
        closing.start()
        assert scene.end(pair) is Status.ERROR
        scene.until(lambda: not scene.signer._pools)
        closing.join()
        assert scene.signer.join(scene.reactor) is not None  # a server may still come with it
        scene.until(lambda: not scene.signer._pools)


def test_two_pools_on_one_loop(identity: Identity, tmp_path: Path) -> None:
    with KeyServer([identity], tmp_path / "s") as server, Scene(identity, [server.address]) as scene:
        leave = scene.signer.join(scene.reactor)
        scene.until(lambda: len(server.conversations) == 2)
        for _ in range(4):
            scene.handshake()
        leave()
        scene.handshake()
        assert scene.numbers().performed == 5
