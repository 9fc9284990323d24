"""Certificates on demand whose clients leave, whose answers never come, and all that at the same time."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from helpers_server import Echo

from support.clients import reset
from support.naming import Desk, asking_context, client, digest, hello, hello_text, send, served
from support.running import PATIENCE, Clock, Running
from tlsserver import Certificate, ClientHelloRequest
from tlsserver.errors import HandshakeGoneError

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.certificates import Certificates, Identity

pytestmark = pytest.mark.usefixtures("nothing_left")

VERSIONS = pytest.mark.parametrize("version", ["1.2", "1.3"])


@pytest.fixture(scope="module")
def main(certificates: Certificates) -> Identity:
    return certificates.for_names("leaving-main", "p256", "main.test")


@pytest.fixture(scope="module")
def shop(certificates: Certificates) -> Identity:
    return certificates.for_names("leaving-shop", "p256", "shop.test")


@VERSIONS
@pytest.mark.parametrize("leave", [socket.socket.close, reset])
def test_the_client_leaves(
    main: Identity, desk: Desk, version: str, leave: Callable[[socket.socket], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tlsserver")
    with Running(asking_context(main, desk), Echo) as site:
        sock = hello(site.address, client(main, version))
        request = desk.next()
        leave(sock)
        site.until(lambda numbers: numbers.handshakes_failed)
        with pytest.raises(HandshakeGoneError):
            request.complete()
        with pytest.raises(HandshakeGoneError):
            request.reject()
        assert site.statistics().questions_answered == 0
    assert "the client left while its question was open" in caplog.text


@VERSIONS
def test_the_client_leaves_as_the_answer_comes(main: Identity, shop: Identity, version: str) -> None:
    """Whichever is first: nothing is left, and nobody else is harmed."""
    given = Certificate(shop.cert, shop.key)
    leaving: list[socket.socket] = []

    def answer(request: ClientHelloRequest) -> None:
        if request.server_name == "leaves.test":
            leaving.pop().close()
        request.complete(given)

    with Running(asking_context(main, answer), Echo) as site:
        for _ in range(20):
            sock = hello(site.address, client(main, version), "stays.test")
            sock.close()
        leaving.append(socket.create_connection(site.address, PATIENCE))
        leaving[0].sendall(hello_text(client(main, version), "leaves.test"))
        assert served(site.address, client(main, version), "stays.test") == digest(shop)
        site.until(lambda numbers: numbers.handshakes_failed == 21)


def test_never_answered(main: Identity, desk: Desk, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tlsserver")
    with Running(asking_context(main, desk), Echo) as site, hello(site.address, client(main)):
        request = desk.next()
        site.until(lambda numbers: numbers.parked_now)
        clock.advance(site.server._config.timeout_handshake + 1, site)
        site.until(lambda numbers: numbers.handshakes_failed)
        with pytest.raises(HandshakeGoneError):
            request.complete()
    assert "on_client_hello has not answered" in caplog.text


def test_a_thousand_that_are_never_answered(main: Identity, clock: Clock) -> None:
    """Meanwhile others are served, and afterwards nothing is left."""
    kept: list[ClientHelloRequest] = []

    def answer(request: ClientHelloRequest) -> None:
        if request.server_name == "never.test":
            kept.append(request)
        else:
            request.complete()

    count = 1000
    with Running(asking_context(main, answer), Echo, max_handshakes=2 * count, backlog=2 * count) as site:
        said = hello_text(client(main), "never.test")
        silent = [send(site.address, said) for _ in range(count)]
        site.until(lambda numbers: numbers.parked_now == count)
        before = site.turns
        site.settle()
        assert site.turns - before <= 3
        for _ in range(20):
            assert served(site.address, client(main), "main.test") == digest(main)
        clock.advance(site.server._config.timeout_handshake + 1, site)
        numbers = site.until(lambda numbers: numbers.handshakes_failed >= count)
        assert (numbers.parked_now, numbers.questions_asked, numbers.questions_answered) == (0, count + 20, 20)
        for request in kept:
            with pytest.raises(HandshakeGoneError):
                request.complete()
        for sock in silent:
            sock.close()


def test_the_server_stops(main: Identity, desk: Desk) -> None:
    with Running(asking_context(main, desk), Echo) as site, hello(site.address, client(main)):
        request = desk.next()
        site.server.stop(0)
        with pytest.raises(HandshakeGoneError):
            request.complete()


def test_answers_from_many_threads(main: Identity, shop: Identity, pool: ThreadPoolExecutor) -> None:
    """Clients come and leave while others' answers are on their way; each gets its own certificate."""
    given = {"main.test": Certificate(main.cert, main.key), "shop.test": Certificate(shop.cert, shop.key)}
    gone: list[str] = []
    with ThreadPoolExecutor(4) as answering:

        def answer(request: ClientHelloRequest) -> None:
            answering.submit(complete, request)

        def complete(request: ClientHelloRequest) -> None:
            try:
                request.complete(given[str(request.server_name)])
            except HandshakeGoneError:
                gone.append("")

        with Running(asking_context(main, answer), Echo) as site:

            def visit(number: int) -> None:
                name, files = ("main.test", main) if number % 2 else ("shop.test", shop)
                if number % 5 == 0:
                    hello(site.address, client(main), name).close()
                else:
                    assert served(site.address, client(main), name) == digest(files)

            for done in [pool.submit(visit, number) for number in range(200)]:
                done.result(PATIENCE)
            numbers = site.until(lambda numbers: numbers.handshakes_in_progress == 0)
            assert numbers.handshakes_completed == 160
    assert threading.active_count() < 50
