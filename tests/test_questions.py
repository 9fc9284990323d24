"""What a handshake asks about its client, one call of OpenSSL at a time: when, and what becomes of the answer."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from OpenSSL import SSL

from engine_shim import ManualEngine, Status, ThreadEngine
from support.certificates import KINDS, ML_DSA
from support.client_authority import Holder
from support.client_scene import alert, asking, client, resumed, session_of
from support.pair import Pair
from tlsserver import ClientCertificates, TLSContext
from tlsserver.client_request import ALERTS

if TYPE_CHECKING:
    from support import client_scene
    from support.certificates import Certificates, Identity

pytestmark = pytest.mark.usefixtures("nothing_left")

both_versions = pytest.mark.parametrize("version", ["1.2", "1.3"])


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
