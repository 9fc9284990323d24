"""Certificates that the application gives when a client asks: at once, later, from other threads, or never."""

from __future__ import annotations

import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from helpers_server import Echo

import engine_shim
from engine_shim import BatchEngine, ManualEngine, ThreadEngine
from support.naming import Desk, alert, asking_context, client, connect, digest, served
from support.running import PATIENCE, Running
from tlsserver import Certificate, ClientHelloRequest, ConfigurationError
from tlsserver.errors import ForkedProcessError, RequestAnsweredError
from tlsserver.state import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.certificates import Certificates, Identity

pytestmark = pytest.mark.usefixtures("nothing_left")

VERSIONS = pytest.mark.parametrize("version", ["1.2", "1.3"])


@pytest.fixture(scope="module")
def main(certificates: Certificates) -> Identity:
    return certificates.for_names("demand-main", "p256", "main.test")


@pytest.fixture(scope="module")
def shop(certificates: Certificates) -> Identity:
    return certificates.for_names("demand-shop", "p256", "shop.test")


@VERSIONS
@pytest.mark.parametrize("offload", [True, False])
def test_at_once(main: Identity, shop: Identity, version: str, offload: bool) -> None:
    given = Certificate(shop.cert, shop.key)

    def answer(request: ClientHelloRequest) -> None:
        request.complete(given if request.server_name == "shop.test" else None)

    with (
        ThreadEngine(1) as engine,
        Running(asking_context(main, answer, engine=engine if offload else None), Echo) as site,
    ):
        assert served(site.address, client(main, version), "shop.test") == digest(shop)
        assert served(site.address, client(main, version), "main.test") == digest(main)
        assert served(site.address, client(main, version), None) == digest(main)
        numbers = site.statistics()
        assert (numbers.questions_asked, numbers.questions_answered, numbers.questions_rejected) == (3, 3, 0)
        assert numbers.ops_performed == (3 if offload else 0)


@VERSIONS
def test_later_from_another_thread(
    main: Identity, shop: Identity, desk: Desk, pool: ThreadPoolExecutor, version: str
) -> None:
    with Running(asking_context(main, desk), Echo) as site:
        ours = client(main, version)
        ours.set_alpn_protocols(["h2", "x-1"])
        got = pool.submit(served, site.address, ours, "Shop.Test")
        request = desk.next()
        assert (request.server_name, request.alpn) == ("Shop.Test", ("h2", "x-1"))
        assert request.versions == (version,)
        assert request.cipher_suites
        assert request.groups
        assert request.signature_algorithms
        assert request.peer[0] == "127.0.0.1"  # type: ignore[index]
        assert site.until(lambda numbers: numbers.parked_now).handshakes_parked == 1
        request.complete(Certificate(shop.cert, shop.key))
        assert got.result(PATIENCE) == digest(shop)
        assert site.until(lambda numbers: not numbers.parked_now).park_seconds.count == 1


def test_nothing_is_polled(main: Identity, desk: Desk, pool: ThreadPoolExecutor) -> None:
    with Running(asking_context(main, desk), Echo, timeout_handshake=77) as site:
        got = pool.submit(served, site.address, client(main), "shop.test")
        request = desk.next()
        site.settle()
        (connection,) = site.connections()
        watch = connection.watch()
        assert (connection.state, watch.read, watch.write, watch.wait_fds) == (State.PARKED, True, False, ())
        assert watch.deadline == connection._started + 77
        jobs = engine_shim.counters()
        assert jobs.jobs_started == jobs.jobs_finished  # none is held
        connection_is_harmed_by_nothing(site, connection)
        request.complete()
        got.result(PATIENCE)


def connection_is_harmed_by_nothing(site: Running, connection: Any) -> None:
    """A resume for nothing asks nothing anew."""
    place = connection._life._place
    site._reactor.call_soon_threadsafe(place.retry)
    site.settle()
    assert connection.state is State.PARKED
    assert site.statistics().questions_asked == 1


@VERSIONS
def test_parked_twice(main: Identity, shop: Identity, desk: Desk, manual: ManualEngine, version: str) -> None:
    """For the answer, then for the signature of the engine that the answer brought."""
    context = asking_context(main, desk)
    assert context.engine is None
    with Running(context, Echo) as site, ThreadPoolExecutor(1) as pool:
        got = pool.submit(served, site.address, client(main, version), "shop.test")
        desk.next().complete(Certificate(shop.cert, manual.load_key(shop.key)))
        site.until(lambda _: manual.pending)
        manual.perform()
        assert got.result(PATIENCE) == digest(shop)
        numbers = site.until(lambda numbers: numbers.park_seconds.count == 2)
        assert (numbers.handshakes_parked, numbers.parked_max) == (1, 1)


def test_an_engine_that_needs_turns(main: Identity, shop: Identity) -> None:
    """Nobody has told the loop of it before the answer came."""
    with BatchEngine(threads=0) as engine:
        given = Certificate(shop.cert, engine.load_key(shop.key))
        with Running(asking_context(main, lambda request: request.complete(given)), Echo) as site:
            assert served(site.address, client(main), "shop.test") == digest(shop)


@VERSIONS
@pytest.mark.parametrize(("given", "said"), [("access_denied", "access denied"), (40, "handshake failure")])
def test_rejected(main: Identity, caplog: pytest.LogCaptureFixture, version: str, given: str | int, said: str) -> None:
    caplog.set_level("INFO", "tlsserver")
    with Running(asking_context(main, lambda request: request.reject(given)), Echo) as site:
        assert said in alert(site.address, client(main, version), "x.test").lower().replace("_", " ")
        assert site.until(lambda numbers: numbers.handshakes_failed).questions_rejected == 1
    assert f"the ClientHello for 'x.test' was refused: {said.replace(' ', '_')}" in caplog.text


def fails(_request: ClientHelloRequest) -> None:
    message = "scripted"
    raise LookupError(message)


async def never(_request: ClientHelloRequest) -> None:
    """Nobody runs it."""


def hidden(request: ClientHelloRequest) -> object:
    return never(request)


@pytest.mark.parametrize(
    ("asked", "said"),
    [(fails, r"LookupError\('scripted'\)"), (hidden, "it returned a coroutine, which nobody would run")],
)
def test_a_callable_that_fails(
    main: Identity, caplog: pytest.LogCaptureFixture, asked: Callable[[ClientHelloRequest], object], said: str
) -> None:
    def only_for_bad(request: ClientHelloRequest) -> object:
        if request.server_name == "bad.test":
            return asked(request)
        request.complete()
        return None

    with Running(asking_context(main, only_for_bad), Echo) as site:
        assert "internal error" in alert(site.address, client(main), "bad.test").lower().replace("_", " ")
        assert served(site.address, client(main), "good.test") == digest(main)
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert line.startswith("on_client_hello failed for bad.test: ")
    assert said.replace("\\", "") in line


def test_what_cannot_be_asked(main: Identity) -> None:
    class Callable:
        async def __call__(self, request: ClientHelloRequest) -> None:
            """The same."""

    for asked, said in ((never, "coroutine function"), (Callable(), "coroutine function"), ("x", "give a function")):
        with pytest.raises(ConfigurationError, match=said) as caught:
            asking_context(main, asked)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


def test_answers_that_do_not_count(
    main: Identity, shop: Identity, desk: Desk, pool: ThreadPoolExecutor, certificates: Certificates
) -> None:
    with Running(asking_context(main, desk), Echo) as site:
        got = pool.submit(served, site.address, client(main), "shop.test")
        request = desk.next()
        with pytest.raises(ConfigurationError, match=r"takes a tlsserver\.Certificate or None, not Identity"):
            request.complete(shop)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="does not belong"):
            request.complete(Certificate(shop.cert, certificates["rsa2048"].key))
        with pytest.raises(ConfigurationError, match="choose from handshake_failure"):
            request.reject("close_notify")
        with pytest.raises(ConfigurationError, match="alert 0 cannot"):
            request.reject(0)
        request._pid += 1
        with pytest.raises(ForkedProcessError):
            request.complete()
        request._pid -= 1
        assert request.is_open
        request.complete(Certificate(shop.cert, shop.key))
        for late in (request.complete, request.reject):
            with pytest.raises(RequestAnsweredError):
                late()
        assert got.result(PATIENCE) == digest(shop)
        with pytest.raises(RequestAnsweredError):
            request.complete()


@VERSIONS
def test_asked_on_resumption_as_well(main: Identity, shop: Identity, version: str) -> None:
    names: list[str | None] = []
    given = Certificate(shop.cert, shop.key)

    def answer(request: ClientHelloRequest) -> None:
        names.append(request.server_name)
        if len(names) < 4:
            request.complete(given)
        else:
            request.reject()

    with Running(asking_context(main, answer), Echo) as site:
        ours = client(main, version)
        with connect(site.address, ours, "a.test") as tls:
            session = tls.session
        for name, reused in (("a.test", True), ("b.test", False)):
            with connect(site.address, ours, name, session) as tls:
                assert tls.session_reused is reused
        with pytest.raises((ssl.SSLError, ConnectionError)):
            connect(site.address, ours, "a.test", session)
    assert names == ["a.test", "a.test", "b.test", "a.test"]


def test_none_means_as_without_a_question(main: Identity, shop: Identity) -> None:
    context = asking_context(
        main,
        lambda request: request.complete(),
        certificates=[Certificate(shop.cert, shop.key)],
        unknown_names="strict",
    )
    with Running(context, Echo) as site:
        assert served(site.address, client(main), "shop.test") == digest(shop)
        assert "unrecognized" in alert(site.address, client(main), "unknown.test").lower()


def test_one_job_for_all(main: Identity, shop: Identity, pool: ThreadPoolExecutor, manual: ManualEngine) -> None:
    """Handshakes with answers wait in the line for jobs, and are asked once."""
    given = Certificate(shop.cert, manual.load_key(shop.key))
    with Running(asking_context(main, lambda request: request.complete(given)), Echo, async_jobs=1) as site:
        got = [pool.submit(served, site.address, client(main), "shop.test") for _ in range(4)]
        site.until(lambda numbers: manual.pending and numbers.queued_now == 3)
        while not all(one.done() for one in got):
            site.until(lambda _: manual.pending or all(one.done() for one in got))
            if manual.pending:
                manual.perform()
        assert {one.result(PATIENCE) for one in got} == {digest(shop)}
        assert site.statistics().questions_asked == 4
