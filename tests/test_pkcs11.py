"""Handshakes whose keys are on a SoftHSM2 token: each kind of key, many at once, and whatever goes wrong."""

# ruff: noqa: S106 - a token's label is no secret
from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest

from engine_shim import EngineClosedError, OperationFailedError, Status, ThreadEngine
from engine_shim.errors import KeyLoadError
from support import leaks
from support.asking import make_pair, said
from support.clients import CLIENTS, Target
from support.running import Running
from support.softhsm import KINDS, MODULE, PIN
from tlsserver import Server, TLSContext
from tlsserver.errors import ConfigurationError
from tlsserver.protocols.echo import EchoProtocol
from tlsserver.protocols.http1 import Response, protocol_factory
from tlsserver.signers import pkcs11_session
from tlsserver.signers.pkcs11 import Pkcs11Signer, open_pkcs11
from tlsserver.signers.pkcs11_mechanism import answer_of
from tlsserver.signers.pkcs11_session import LostError, SigningSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from support.certificates import Certificates, Identity

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def signer(web: str) -> Iterator[Pkcs11Signer]:
    with Pkcs11Signer(web, pin=PIN) as made:
        yield made


def context_of(signer: Pkcs11Signer, identity: Identity) -> TLSContext:
    return TLSContext(identity.cert, signer.load_key(identity.cert))


def shake_hands(address: tuple[str, int], identity: Identity, version: ssl.TLSVersion | None = None) -> bytes:
    context = ssl.create_default_context(cafile=str(identity.ca))
    if version is not None:
        context.minimum_version = context.maximum_version = version
    with socket.create_connection(address, 30) as raw, context.wrap_socket(raw, server_hostname="localhost") as tls:
        tls.sendall(b"ping")
        return tls.recv(4)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("kind", KINDS)
def test_handshake(signer: Pkcs11Signer, certificates: Certificates, kind: str, version: str) -> None:
    with make_pair(signer, certificates[kind], version) as pair:
        assert pair.finish() is Status.DONE
        assert pair.parks > 0
        assert pair.echo() == b"ping"
    (numbers,) = signer.signers()
    assert (numbers.name, numbers.state, numbers.breaker, numbers.performed) == ("pkcs11:web", "up", "closed", 1)


def test_key_exchange_with_rsa(signer: Pkcs11Signer, certificates: Certificates) -> None:
    with make_pair(signer, certificates["rsa2048"], "1.2", "AES128-GCM-SHA256@SECLEVEL=0") as pair:
        assert pair.finish() is Status.DONE
        assert pair.echo() == b"ping"


@pytest.mark.parametrize("client", ["s_client", "curl"])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_real_clients(signer: Pkcs11Signer, certificates: Certificates, client: str, version: str) -> None:
    identity = certificates["rsa2048"]
    with Running(context_of(signer, identity), protocol_factory(lambda _: Response(200))) as site:
        CLIENTS[client](Target(site.port, identity, version), [b"one"])
        (numbers,) = site.statistics().signers
        assert (numbers.performed, numbers.failed, numbers.total_seconds.count) == (1, 0, 1)


@pytest.mark.parametrize("digest", ["SHA1", "SHA224", "SHA256", "SHA384", "SHA512"])
@pytest.mark.parametrize(
    ("kind", "padding"), [("rsa2048", "pkcs1"), ("rsa2048", "pss"), ("p256", None), ("p521", None)]
)
def test_digests(signer: Pkcs11Signer, certificates: Certificates, kind: str, padding: str | None, digest: str) -> None:
    """What is not verified never leaves the engine."""
    assert signer.load_key(certificates[kind].cert).sign(b"text", digest=digest, padding=padding)


def test_many_at_once(signer: Pkcs11Signer, certificates: Certificates, pool: ThreadPoolExecutor) -> None:
    identity = certificates["rsa2048"]
    with Server(context_of(signer, identity), EchoProtocol, port=0) as server:
        done = [pool.submit(shake_hands, server.address, identity) for _ in range(64)]
        assert {one.result() for one in done} == {b"ping"}
        numbers = server.statistics()
    assert (numbers.handshakes_completed, numbers.handshakes_parked) == (64, 64)
    assert (numbers.signers[0].performed, numbers.signers[0].failed, numbers.signers[0].retries) == (64, 0, 0)


def test_threads_are_started_as_they_are_needed(
    web: str, certificates: Certificates, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, perform = threading.Barrier(3), SigningSession.perform

    def meet(self: SigningSession, *arguments: Any) -> bytes:
        together.wait(30)
        return perform(self, *arguments)

    with Pkcs11Signer(web, pin=PIN, threads=3) as signer:
        key = signer.load_key(certificates["p256"].cert)
        assert key.sign(b"alone")
        assert len(signer._threads) <= 2
        monkeypatch.setattr(SigningSession, "perform", meet)
        assert all(one.result() for one in [pool.submit(key.sign, b"%d" % i) for i in range(6)])
        assert len(signer._threads) == 3


def held(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Make the token slow: it has begun, and waits until it may go on."""
    begun, go, perform = threading.Event(), threading.Event(), SigningSession.perform

    def wait(self: SigningSession, *arguments: Any) -> bytes:
        begun.set()
        go.wait(30)
        return perform(self, *arguments)

    monkeypatch.setattr(SigningSession, "perform", wait)
    return begun, go


def test_client_that_leaves_while_the_token_signs(
    signer: Pkcs11Signer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = certificates["p256"]
    begun, go = held(monkeypatch)
    with Running(context_of(signer, identity), EchoProtocol) as site:
        raw = socket.create_connection(site.address)
        tls = ssl.create_default_context(cafile=str(identity.ca)).wrap_socket(
            raw, server_hostname="localhost", do_handshake_on_connect=False
        )
        tls.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        assert begun.wait(30)
        tls.close()
        site.until(lambda numbers: not numbers.connections_open)
        go.set()
        assert shake_hands(site.address, identity) == b"ping"
        (numbers,) = site.until(lambda numbers: numbers.handshakes_completed == 1).signers
        assert (numbers.performed, numbers.state, numbers.breaker) == (1, "up", "closed")


def test_closing_while_the_token_signs(web: str, certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = held(monkeypatch)
    with Pkcs11Signer(web, pin=PIN) as signer, make_pair(signer, certificates["p256"]) as pair:
        assert pair.until_parked() is Status.WANT_ASYNC
        assert begun.wait(30)
        assert not signer.close(0.01)
        pair.wait()
        assert pair.until_parked() is Status.ERROR
        go.set()
        assert signer.close()
    with pytest.raises(EngineClosedError):
        signer.take()


def test_loop_goes_on_while_the_token_signs(
    signer: Pkcs11Signer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = certificates["p256"]
    with Running(context_of(signer, identity), EchoProtocol) as site:
        context = ssl.create_default_context(cafile=str(identity.ca))
        raw = socket.create_connection(site.address, 30)
        with raw, context.wrap_socket(raw, server_hostname="localhost") as tls:
            begun, go = held(monkeypatch)
            other = threading.Thread(target=shake_hands, args=(site.address, identity))
            other.start()
            assert begun.wait(30)
            tls.sendall(b"meanwhile")
            assert tls.recv(9) == b"meanwhile"
            go.set()
            other.join()


def test_wrong_signature_is_asked_for_once_more(
    signer: Pkcs11Signer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, right, wrong = signer.load_key(certificates["rsa2048"].cert), answer_of, [b"wrong"]
    monkeypatch.setattr(pkcs11_session, "answer_of", lambda request, raw: wrong.pop() if wrong else right(request, raw))
    assert key.sign(b"text")
    wrong += [b"wrong", b"wrong"]
    with pytest.raises(OperationFailedError, match="token 'web' has given a wrong signature"):
        key.sign(b"text")
    (numbers,) = signer.signers()
    assert (numbers.performed, numbers.retries) == (1, 2)


def away(*_: object) -> bytes:
    raise LostError("token 'web' was lost") from ConfigurationError("away")


def test_token_that_stays_away(web: str, certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SigningSession, "perform", away)
    with (
        Pkcs11Signer(web, pin=PIN, deadline=0.3) as signer,
        make_pair(signer, certificates["p256"]) as pair,
    ):
        assert pair.finish() is Status.ERROR
        assert "token 'web' was lost" in said(pair)
        (numbers,) = signer.signers()
        assert (numbers.state, numbers.breaker) == ("down", "closed")
        assert numbers.retries >= 2


def test_local_key_performs_while_the_token_is_away(
    web: str, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def lost(*arguments: object) -> bytes:
        asked.append(arguments)
        return away()

    monkeypatch.setattr(SigningSession, "perform", lost)
    identity = certificates["p256"]
    with ThreadEngine(1) as threads, Pkcs11Signer(web, pin=PIN, fallback=threads.load_key(identity.key)) as signer:
        key = signer.load_key(identity.cert)
        for _ in range(5):
            assert key.sign(b"text")
        leaks.wait_until(lambda: signer.signers()[0].breaker == "open")
        before = len(asked)
        assert key.sign(b"text")
        (numbers,) = signer.signers()
        assert (numbers.breaker, numbers.fallbacks, numbers.state) == ("open", 6, "down")
        assert (numbers.performed, numbers.failed) == (0, 6)
        assert len(asked) == before == 10  # once more each, for a session that was lost alone


def test_thread_that_is_not_to_be_had(
    signer: Pkcs11Signer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that are there go on; and if there is none, whoever loads the key is told."""
    identity = certificates["p256"]

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ConfigurationError, match="cannot start its thread: can't start new thread"):
            signer.load_key(identity.cert)
    key = signer.load_key(identity.cert)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            assert key.sign(b"text")
    assert "signer pkcs11 has no more than 1 threads" in caplog.text
    assert key.sign(b"text")


def test_error_of_ours_takes_no_thread_with_it(
    signer: Pkcs11Signer,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> bytes:
        raise ZeroDivisionError

    key = signer.load_key(certificates["p256"].cert)
    with monkeypatch.context() as patch:
        patch.setattr(SigningSession, "perform", broken)
        with pytest.raises(OperationFailedError, match="signer pkcs11: ZeroDivisionError"):
            key.sign(b"text")
    assert key.sign(b"text")
    assert "signer pkcs11: request 1" in caplog.text
    caplog.clear()  # the traceback has the op


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: Pkcs11Signer(f"pkcs11:?module-path={MODULE}", threads=0), "has 0 threads: between 1 and 256"),
        (lambda: Pkcs11Signer(f"pkcs11:?module-path={MODULE}", deadline=0), "deadline is 0"),
        (lambda: Pkcs11Signer(f"pkcs11:token=a?module-path={MODULE}", token="b"), "means token 'a', not 'b'"),
        (lambda: Pkcs11Signer("pkcs11:", module=MODULE, pin="1234"), "none of them"),
    ],
    ids=["threads", "deadline", "token", "pin"],
)
def test_setting_that_cannot_work(make: Callable[[], object], what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        make()


def test_private_key_in_a_file_is_refused(signer: Pkcs11Signer, certificates: Certificates) -> None:
    with pytest.raises(KeyLoadError, match="give the certificate"):
        signer.load_key(certificates["p256"].key)


def test_as_the_command_line_opens_it(web: str, certificates: Certificates, tmp_path: Path) -> None:
    file = tmp_path / "pin"
    file.write_bytes(PIN)
    file.chmod(0o600)
    with open_pkcs11(web, f"file:{file}", 1) as signer:
        assert signer.name == "pkcs11"
        assert signer.load_key(certificates["p256"].cert).sign(b"text")
        assert len(signer._threads) == 1
    with open_pkcs11(f"{web}&pin-source=file:{file}") as signer:
        assert signer.load_key(certificates["p256"].cert).sign(b"text")
