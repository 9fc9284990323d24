"""The policy hook for clients: asked on full handshakes and resumptions, answered now, later, or never."""

from __future__ import annotations

import gc
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from helpers_server import check_nothing_left
from OpenSSL import SSL

import engine_shim
from engine_shim import ManualEngine, Status, ThreadEngine
from support import client_scene
from support.certificates import KINDS, ML_DSA
from support.client_authority import Holder
from support.client_scene import alert, client, resumed, session_of
from support.hook_site import HookSite
from support.pair import Pair
from tlsserver import ClientCertificateRequest, ClientCertificates, TLSContext
from tlsserver.client_request import ALERTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.certificates import Certificates, Identity

both_versions = pytest.mark.parametrize("version", ["1.2", "1.3"])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> client_scene.House:
    return client_scene.House(tmp_path_factory.mktemp("clients"))


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    gc.collect()  # questions that a test before still holds
    yield from check_nothing_left()


def asking(
    house: client_scene.House, hook: Callable[[ClientCertificateRequest], object], mode: Any = "required"
) -> Any:
    return ClientCertificates(mode, house.root.cert, on_verified=hook)


def answer(pair: Pair, verdict: int) -> None:
    """Do what a session does, without one."""
    question = pair.server.question()
    assert question is not None
    assert pair.server.question() is None
    assert question.verdict is None
    assert not pair.signalled()
    assert question.answer(verdict)
    assert not question.answer(0), "the first answer counts"
    assert question.verdict == verdict


# In C


@both_versions
@pytest.mark.parametrize("told", ALERTS)
def test_every_alert(identity: Identity, house: client_scene.House, version: str, told: str) -> None:
    context = TLSContext(identity.cert, identity.key, client_certificates=asking(house, print))
    assert context.offloaded
    with Pair(context.pyopenssl, client(identity, house.good, version)) as pair:
        assert pair.until_parked() is Status.WANT_ASYNC
        answer(pair, ALERTS[told])
        assert pair.finish() is Status.ERROR
        assert alert(pair) == told.replace("_", " ")


@both_versions
def test_a_spurious_resume_parks_again(identity: Identity, house: client_scene.House, version: str) -> None:
    context = TLSContext(identity.cert, identity.key, client_certificates=asking(house, print))
    with Pair(context.pyopenssl, client(identity, house.good, version)) as pair:
        for _ in range(3):
            assert pair.until_parked() is Status.WANT_ASYNC
        answer(pair, 0)
        assert pair.finish() is Status.DONE
        assert pair.echo() == b"ping"


def test_what_openssl_refuses_is_not_asked_about(identity: Identity, house: client_scene.House) -> None:
    context = TLSContext(identity.cert, identity.key, client_certificates=asking(house, print))
    with Pair(context.pyopenssl, client(identity, house.unknown)) as pair:
        assert pair.finish() is Status.ERROR
        assert alert(pair) == "unknown ca"
        assert pair.server.verify_error == "unable to get local issuer certificate"


def test_nobody_is_asked_about_a_client_without_a_certificate(identity: Identity, house: client_scene.House) -> None:
    context = TLSContext(identity.cert, identity.key, client_certificates=asking(house, print, "optional"))
    far = client(identity, None)
    session = session_of(context, far)
    assert resumed(context, far, session) is True


def test_an_engine_and_a_question_pause_one_after_the_other(identity: Identity, house: client_scene.House) -> None:
    with ManualEngine() as engine:
        key = engine.load_key(identity.key)
        context = TLSContext(identity.cert, key, client_certificates=asking(house, print))
        with Pair(context.pyopenssl, client(identity, house.good)) as pair:
            assert pair.until_parked() is Status.WANT_ASYNC
            assert pair.server.question() is None
            engine.perform()
            assert pair.until_parked() is Status.WANT_ASYNC
            answer(pair, 0)
            assert pair.finish() is Status.DONE


def test_without_a_job_the_handshake_fails(identity: Identity, house: client_scene.House) -> None:
    context = TLSContext(identity.cert, identity.key, client_certificates=asking(house, print))
    with Pair(context.pyopenssl, client(identity, house.good), offloaded=False) as pair:
        assert pair.finish() is Status.ERROR
        assert "no job to pause" in pair.server.errors()[0].text
        assert alert(pair) == "internal error"


@both_versions
def test_a_late_answer_to_a_connection_that_is_gone(
    identity: Identity, house: client_scene.House, version: str
) -> None:
    context = TLSContext(identity.cert, identity.key, client_certificates=asking(house, print))
    with Pair(context.pyopenssl, client(identity, house.good, version)) as pair:
        assert pair.until_parked() is Status.WANT_ASYNC
        question = pair.server.question()
        assert question is not None
        assert pair.close()
    threads = [threading.Thread(target=question.answer, args=(0,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert question.verdict == 0
    assert question.chain[0] == house.good.der


# On a server


@both_versions
def test_the_hook_is_asked_once_and_the_client_comes_in(
    identity: Identity, house: client_scene.House, version: str
) -> None:
    seen: list[tuple[str, bool, bool]] = []

    def hook(request: ClientCertificateRequest) -> None:
        seen.append((request.certificate.subject, request.resumption, engine_shim.job_is_current()))
        assert request.peername[0] == "127.0.0.1"
        assert "open from" in repr(request)
        assert request.accept()
        assert not request.reject()

    with HookSite(identity, house.good, version, asking(house, hook)) as site:
        site.connected()
        assert seen == [("CN=good", False, False)]
        assert site.statistics.handshakes_parked == 0, "what is answered at once need not be parked"


@both_versions
def test_later_on_another_thread(identity: Identity, house: client_scene.House, version: str) -> None:
    asked: list[ClientCertificateRequest] = []
    with HookSite(identity, house.good, version, asking(house, asked.append)) as site:
        first, second = site.client(), site.client()
        site.until(lambda: len(asked) == 2)
        site.quiet()
        assert site.statistics.parked_now == 2
        threading.Thread(target=asked[1].accept).start()
        site.until(lambda: first.is_connected + second.is_connected >= 1 and site.statistics.handshakes_completed == 1)
        assert site.statistics.parked_now == 1
        asked[0].reject("bad_certificate")
        site.until(lambda: site.statistics.handshakes_failed == 1)
        site.until(lambda: first.error or second.error)
        assert "BAD_CERTIFICATE" in str(first.error or second.error)
        asked.clear()


def test_a_refusal_is_one_line_in_the_log(
    identity: Identity, house: client_scene.House, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.INFO),
        HookSite(identity, house.good, "1.3", asking(house, lambda request: request.reject())) as site,
    ):
        site.client()
        site.until(lambda: site.statistics.handshakes_failed)
    assert "failed: the client is refused by the policy hook, with certificate_unknown" in caplog.text
    assert len(caplog.records) == 1
    caplog.clear()  # they hold the connection


def test_what_openssl_refuses_is_said_why(
    identity: Identity, house: client_scene.House, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.INFO),
        HookSite(identity, house.expired, "1.3", asking(house, print)) as site,
    ):
        site.client()
        site.until(lambda: site.statistics.handshakes_failed)
    assert "failed: certificate verify failed: certificate has expired" in caplog.text


def test_a_hook_that_raises_refuses(
    identity: Identity, house: client_scene.House, caplog: pytest.LogCaptureFixture
) -> None:
    def hook(_: ClientCertificateRequest) -> None:
        raise RuntimeError("no database")

    with HookSite(identity, house.good, "1.3", asking(house, hook)) as site:
        made = site.client()
        site.until(lambda: made.error)
        assert "INTERNAL_ERROR" in str(made.error)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "the hook for client certificates failed: the client ('127.0.0.1', " in record.getMessage()
    del record
    caplog.clear()  # it holds the request


def test_an_alert_that_cannot_be_sent(identity: Identity, house: client_scene.House) -> None:
    asked: list[ClientCertificateRequest] = []
    with HookSite(identity, house.good, "1.3", asking(house, asked.append)) as site:
        site.client()
        site.until(lambda: asked)
        with pytest.raises(ValueError, match="alert 'access_denied' cannot be sent here: choose from certificate_unk"):
            asked[0].reject("access_denied")
        assert asked.pop().accept()


# Resumption


@both_versions
def test_a_resumption_is_asked_about(identity: Identity, house: client_scene.House, version: str) -> None:
    seen: list[tuple[bool, int]] = []

    def hook(request: ClientCertificateRequest) -> None:
        seen.append((request.resumption, len(request.certificate.chain)))
        request.accept()

    with HookSite(identity, house.below, version, asking(house, hook)) as site:
        assert [site.visit(), site.visit()] == [False, True]
        assert seen == [(False, 3), (True, 1)]


@both_versions
def test_who_is_refused_meanwhile_does_not_come_back(
    identity: Identity, house: client_scene.House, version: str
) -> None:
    seen: list[bool] = []
    welcome = True

    def hook(request: ClientCertificateRequest) -> None:
        seen.append(request.resumption)
        if welcome:
            request.accept()
        else:
            request.reject("certificate_revoked")

    with HookSite(identity, house.good, version, asking(house, hook)) as site:
        site.visit()
        welcome = False
        assert "CERTIFICATE_REVOKED" in str(site.visit())
        assert seen == [False, True, False]


@both_versions
def test_a_refused_resumption_that_comes_in_by_a_full_handshake(
    identity: Identity, house: client_scene.House, version: str
) -> None:
    """Such as a hook that wants to see the whole chain."""

    def hook(request: ClientCertificateRequest) -> None:
        if request.resumption:
            request.reject()
        else:
            request.accept()

    with HookSite(identity, house.good, version, asking(house, hook)) as site:
        assert [site.visit(), site.visit()] == [False, False]


@both_versions
def test_a_session_of_another_policy_is_not_even_asked_about(
    identity: Identity, house: client_scene.House, version: str
) -> None:
    old = TLSContext(identity.cert, identity.key, client_certificates=ClientCertificates(ca_certs=house.root.cert))
    new = old.replace(client_certificates=asking(house, print))
    far = client(identity, house.good, version)
    session = session_of(old, far)
    with Pair(new.pyopenssl, far) as pair:
        pair.client.set_session(session)
        assert pair.until_parked() is Status.WANT_ASYNC
        question = pair.server.question()
        assert question is not None
        assert not question.is_resumption
        question.answer(0)
        assert pair.finish() is Status.DONE


@both_versions
def test_sessions_without_tickets_do_not_resume_unasked(
    identity: Identity, house: client_scene.House, version: str
) -> None:
    context = TLSContext(identity.cert, identity.key, client_certificates=asking(house, print))
    context.pyopenssl.set_options(SSL.OP_NO_TICKET)
    far = client(identity, house.good, version)
    session = None
    for _ in range(2):
        with Pair(context.pyopenssl, far) as pair:
            if session is not None:
                pair.client.set_session(session)
            assert pair.until_parked() is Status.WANT_ASYNC
            answer(pair, 0)
            assert pair.finish() is Status.DONE
            pair.echo()
            assert not pair.server.reused
            session = pair.client.get_session()
            pair.client.shutdown()


# What must hold


@both_versions
@pytest.mark.parametrize("kind", [*KINDS, *ML_DSA])
def test_every_kind_of_key(certificates: Certificates, kind: str, version: str) -> None:
    """Also with key pairs made ahead, whose provider must not be asked about the clients' keys."""
    if kind in ML_DSA and version == "1.2":
        return  # TLS 1.2 has no signature scheme for it
    identity = certificates[kind]
    holder = Holder(identity.cert, identity.key, x509.load_pem_x509_certificate(identity.cert.read_bytes()))
    asked = ClientCertificates(ca_certs=identity.ca, on_verified=print)
    with ThreadEngine(threads=1) as engine:
        context = TLSContext(identity.cert, identity.key, engine=engine, client_certificates=asked)
        with Pair(context.pyopenssl, client(identity, holder, version)) as pair:
            while pair.until_parked() is Status.WANT_ASYNC and (question := pair.server.question()) is None:
                pair.wait()
            assert question is not None
            assert question.chain[0] == holder.der
            question.answer(0)
            assert pair.finish() is Status.DONE
            assert pair.echo() == b"ping"


def test_clients_that_leave_while_their_question_is_open(identity: Identity, house: client_scene.House) -> None:
    asked: list[ClientCertificateRequest] = []
    with HookSite(identity, house.good, "1.3", asking(house, asked.append)) as site:
        made = [site.client() for _ in range(20)]
        site.until(lambda: len(asked) == 20)
        for number, one in enumerate(made):
            (one.close if number % 2 else one.reset)()
        site.until(lambda: site.statistics.handshakes_failed == 20 and site.is_empty())
        assert all(request.accept() for request in asked)
        assert {request.peername is None or len(request.peername) == 2 for request in asked} == {True}
        asked.clear()


def test_a_question_that_is_never_answered_ends_at_the_deadline(
    identity: Identity, house: client_scene.House, clock: Any
) -> None:
    asked: list[ClientCertificateRequest] = []
    with HookSite(identity, house.good, "1.3", asking(house, asked.append)) as site:
        site.client()
        site.until(lambda: asked)
        clock.advance(10)
        site.until(lambda: site.statistics.handshakes_failed == 1 and site.is_empty())
        asked.clear()


def test_a_thousand_unanswered_ones_hinder_nobody(identity: Identity, house: client_scene.House, clock: Any) -> None:
    asked: list[ClientCertificateRequest] = []

    def hook(request: ClientCertificateRequest) -> None:
        if request.certificate.subject == "CN=other":
            request.accept()
        else:
            asked.append(request)

    with (
        ThreadEngine(threads=1) as engine,
        HookSite(identity, house.good, "1.3", asking(house, hook), engine=engine, max_handshakes=2000) as site,
    ):
        site.crowd(1000, asked)
        assert site.statistics.parked_now == 1000
        for _ in range(10):
            site.connected_as(house.other)
        assert site.statistics.handshakes_completed == 10
        clock.advance(10)
        site.until(lambda: site.statistics.handshakes_failed == 1000)
        asked.clear()
