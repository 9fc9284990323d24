"""The policy hook for clients: asked on full handshakes and resumptions, answered now, later, or never."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

import engine_shim
from engine_shim import ThreadEngine
from support.client_scene import asking
from support.hook_site import HookSite

if TYPE_CHECKING:
    from support import client_scene
    from support.certificates import Identity
    from tlsserver import ClientCertificateRequest

pytestmark = pytest.mark.usefixtures("nothing_left")

both_versions = pytest.mark.parametrize("version", ["1.2", "1.3"])


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


def test_a_hook_that_returns_a_coroutine_refuses(
    identity: Identity, house: client_scene.House, caplog: pytest.LogCaptureFixture
) -> None:
    async def never_run(request: ClientCertificateRequest) -> None:
        request.accept()

    def hook(request: ClientCertificateRequest) -> object:
        return never_run(request)

    with HookSite(identity, house.good, "1.3", asking(house, hook)) as site:
        site.client()
        site.until(lambda: site.statistics.handshakes_failed)
    assert "it returned a coroutine, which nobody would run" in caplog.text
    caplog.clear()  # it holds the request


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


# What must hold


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
    identity: Identity, house: client_scene.House, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[ClientCertificateRequest] = []
    with (
        caplog.at_level(logging.INFO),
        HookSite(identity, house.good, "1.3", asking(house, asked.append)) as site,
    ):
        site.client()
        site.until(lambda: asked)
        clock.advance(10)
        site.until(lambda: site.statistics.handshakes_failed == 1 and site.is_empty())
        asked.clear()
    assert "failed: not finished within 10 s: its question is not answered" in caplog.text
    caplog.clear()


def test_a_server_that_ends_with_questions_open(identity: Identity, house: client_scene.House) -> None:
    asked: list[ClientCertificateRequest] = []
    with HookSite(identity, house.good, "1.2", asking(house, asked.append)) as site:
        for _ in range(3):
            site.client()
        site.until(lambda: len(asked) == 3)
        asked.pop()  # nobody can answer it any more
    assert asked.pop().reject()
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
