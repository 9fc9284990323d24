"""The load: against our server, and against servers that it can only fail at."""

from __future__ import annotations

import dataclasses
import gc
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from helpers_bench import behaving, leave_in_the_middle, load, reset_in_the_middle, run, say
from OpenSSL import SSL
from OpenSSL._util import ffi, lib

import engine_shim
from support import leaks
from support.running import PATIENCE, Running
from tlsserver import TLSContext
from tlsserver.bench import Client, Close, Settings
from tlsserver.bench.answer import make_request
from tlsserver.bench.client import Tunnel
from tlsserver.errors import ConfigurationError
from tlsserver.protocols.echo import EchoProtocol
from tlsserver.protocols.http1 import Response, protocol_factory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Certificates, Identity
    from tlsserver.bench import Tally

ALERT_HANDSHAKE_FAILURE = b"\x15\x03\x03\x00\x02\x02\x28"

both_versions = pytest.mark.parametrize("tls", ["1.2", "1.3"])


@pytest.fixture
def site(identity: Identity) -> Iterator[Running]:
    context = TLSContext(identity.cert, identity.key, alpn=("http/1.1",))
    with Running(context, protocol_factory(lambda _: Response(body=b"hello"))) as running:
        yield running


@both_versions
def test_full_handshakes(site: Running, tls: str) -> None:
    tally = run(site.port, tls=tls, count=30)
    assert (tally.done, len(tally.handshakes), len(tally.responses), tally.resumed) == (30, 30, 0, 0)
    assert tally.is_good
    assert 0 < min(tally.handshakes) <= max(tally.handshakes) <= tally.seconds < PATIENCE
    assert 0 < tally.cpu < PATIENCE
    assert (tally.group or "").upper() == "X25519"
    assert "AES" in tally.cipher
    numbers = site.until(lambda numbers: numbers.connections_open == 0)
    assert (numbers.handshakes_completed, numbers.handshakes_failed) == (30, 0)


@both_versions
def test_all_but_the_first_are_resumed(site: Running, tls: str) -> None:
    tally = run(site.port, tls=tls, resume=True, count=30, concurrency=8)
    assert (tally.done, tally.resumed, dict(tally.errors)) == (30, 29, {})


def test_each_connection_has_a_ticket_of_its_own(site: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may take each only once (RFC 8446 8.1)."""
    offered: list[bytes] = []
    connect = Client.connect

    def look(client: Client, sock: socket.socket, session: SSL.Session | None) -> Tunnel:
        offered.extend([secret(session)] if session else [])
        return connect(client, sock, session)

    monkeypatch.setattr(Client, "connect", look)
    run(site.port, resume=True, concurrency=1, count=5)
    assert len(offered) == len(set(offered)) == 4


def secret(session: SSL.Session) -> bytes:
    """Give what a ticket stands for, which is another one for each (RFC 8446 4.6.1)."""
    out = ffi.new("unsigned char[]", 48)
    return bytes(ffi.buffer(out, lib.SSL_SESSION_get_master_key(session._session, out, len(out))))


@both_versions
@pytest.mark.parametrize("resume", [False, True])
def test_requests(site: Running, tls: str, resume: bool) -> None:
    tally = run(site.port, tls=tls, resume=resume, request=make_request("localhost"))
    assert (tally.done, len(tally.responses), tally.resumed, dict(tally.errors)) == (20, 20, 19 * resume, {})
    for handshake, response in zip(sorted(tally.handshakes), sorted(tally.responses), strict=True):
        assert handshake < response


def test_an_answer_that_is_a_refusal(identity: Identity) -> None:
    handler = protocol_factory(lambda _: Response(503))
    with Running(TLSContext(identity.cert, identity.key), handler) as running:
        tally = run(running.port, count=3, request=make_request("x"))
    assert (tally.done, len(tally.responses), dict(tally.errors)) == (3, 0, {"answered 503": 3})


@both_versions
def test_closing_by_reset(site: Running, tls: str) -> None:
    tally = run(site.port, tls=tls, close=Close.RESET)
    assert (tally.done, dict(tally.errors)) == (20, {})


@pytest.mark.parametrize(("count", "concurrency"), [(1, 1), (1, 64), (3, 64), (65, 64)])
def test_the_count_is_exact(site: Running, count: int, concurrency: int) -> None:
    assert run(site.port, count=count, concurrency=concurrency).done == count
    assert site.until(lambda numbers: numbers.connections_open == 0).connections_accepted == count


def test_the_concurrency_is_a_bound_and_is_reached() -> None:
    seen: list[int] = []

    def watch(_: Tally) -> None:
        seen.append(len(waiting._open))
        if len(seen) > 2:
            waiting.stop()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        waiting = load(listener.getsockname()[1], concurrency=7, count=None)
        waiting._watch = watch
        waiting.run()
    assert seen == [0, 7, 7, 0]


def test_the_clock_ends_it_and_loses_nothing(site: Running) -> None:
    tally = run(site.port, count=None, duration=0.2)
    assert tally.is_good
    numbers = site.until(lambda numbers: numbers.connections_open == 0)
    assert (numbers.handshakes_completed, numbers.handshakes_failed) == (tally.done, 0)


def test_stopping_drops_what_is_in_progress(site: Running) -> None:
    running = load(site.port, count=None)
    running._watch = lambda tally: running.stop() if tally.done else None
    tally = running.run()
    assert tally.done > 0
    assert not tally.errors


def test_nothing_is_left_behind(site: Running) -> None:
    run(site.port, request=make_request("x"), resume=True)
    site.until(lambda numbers: numbers.connections_open == 0)
    before = leaks.holdings()
    run(site.port, request=make_request("x"), resume=True)
    site.until(lambda numbers: numbers.connections_open == 0)
    assert not leaks.complaint(before, leaks.settled(before))
    assert gc.isenabled()


def test_no_cycles(site: Running) -> None:
    """The garbage collector is off meanwhile: whatever it would have to free piles up."""
    run(site.port)
    gc.collect()
    gc.disable()
    try:
        run(site.port, count=100, request=make_request("x"))
        held = [one for one in gc.get_objects() if isinstance(one, Tunnel)]
    finally:
        gc.enable()
    assert held == []


# What a server may do to it.


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    tally = run(port, count=7)
    assert dict(tally.errors) == {"refused: nobody listens there": 7}


def test_a_hopeless_case_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert sum(run(port, count=None).errors.values()) == 100


@pytest.mark.parametrize(
    ("behave", "kind"),
    [
        (reset_in_the_middle, "reset by the server"),
        (leave_in_the_middle, "closed by the server"),
        (say(ALERT_HANDSHAKE_FAILURE), "alert handshake_failure"),
        (say(b"SSH-2.0-nonsense\r\n"), "TLS: wrong version number"),
    ],
    ids=["reset", "left", "alert", "no-tls"],
)
@both_versions
def test_a_server_that_fails(behave: Any, kind: str, tls: str) -> None:
    with behaving(behave) as port:
        tally = run(port, tls=tls, count=8)
    (found,) = tally.errors
    assert found.replace("packet length too long", "wrong version number") == kind
    assert (tally.done, tally.errors[found]) == (0, 8)


def test_a_server_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tally = run(listener.getsockname()[1], count=4, timeout=0.05)
    assert (tally.done, dict(tally.errors)) == (0, {"timeout": 4})


def test_a_server_that_never_closes(identity: Identity) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert, identity.key)
    kept = []

    def keep(connection: socket.socket, _: int) -> None:
        kept.append(context.wrap_socket(connection, server_side=True))

    with behaving(keep) as port:
        tally = run(port, count=2, timeout=0.1)
    assert (tally.done, dict(tally.errors)) == (2, {"not closed by the server in time": 2})
    for one in kept:
        one.close()


def test_a_server_that_wants_a_certificate(identity: Identity, ca: Identity) -> None:
    """In TLS 1.3 the client has finished before the server says so."""
    wanting = SSL.Context(SSL.TLS_SERVER_METHOD)
    wanting.use_certificate_chain_file(str(identity.cert))
    engine_shim.use_plain_key(wanting, identity.key)
    wanting.load_verify_locations(str(ca.cert))
    wanting.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    with Running(TLSContext.from_pyopenssl(wanting), EchoProtocol) as running:
        tally = run(running.port, count=1)
    assert dict(tally.errors) == {"alert certificate_required": 1}


def test_an_answer_that_ends_too_early(identity: Identity) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert, identity.key)

    def answer(connection: socket.socket, _: int) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            tls.recv(1 << 16)
            tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort")

    with behaving(answer) as port:
        tally = run(port, count=2, request=make_request("x"))
    assert tally.done == 2
    assert len(tally.responses) == 0
    (kind,) = tally.errors
    assert kind.startswith("no HTTP: peer closed connection without sending complete message body")


def test_a_server_without_tickets(identity: Identity) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert, identity.key)
    context.num_tickets = 0

    def end(connection: socket.socket, _: int) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            tls.recv(1)

    with behaving(end) as port:
        tally = run(port, count=3, resume=True)
    assert (tally.done, tally.resumed, dict(tally.errors)) == (3, 0, {})


# What is offered.


@pytest.mark.parametrize(
    ("settings", "cipher", "group"),
    [
        ({"ciphersuites": "TLS_CHACHA20_POLY1305_SHA256"}, "TLS_CHACHA20_POLY1305_SHA256", "x25519"),
        ({"groups": "P-384"}, "TLS_AES_128_GCM_SHA256", "secp384r1"),
        ({"tls": "1.2", "ciphers": "ECDHE+CHACHA20"}, "ECDHE-ECDSA-CHACHA20-POLY1305", "x25519"),
    ],
)
def test_algorithms(site: Running, settings: dict[str, Any], cipher: str, group: str) -> None:
    tally = run(site.port, count=1, **settings)
    assert (tally.cipher, (tally.group or "").lower()) == (cipher, group)


@pytest.mark.parametrize("kind", ["rsa2048", "p384", "ed25519"])
@both_versions
def test_kinds_of_keys(certificates: Certificates, kind: str, tls: str) -> None:
    with Running(TLSContext(certificates[kind].cert, certificates[kind].key), EchoProtocol) as running:
        assert run(running.port, count=2, tls=tls).is_good


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": "no-such"}, "groups 'no-such' cannot be used"),
        ({"groups": "é"}, "groups 'é' cannot be used"),
        ({"ciphers": "no-such"}, "cipher list 'no-such' has no suite"),
        ({"ciphersuites": "no-such"}, "cipher suites 'no-such' are not all known"),
        ({"ciphersuites": ""}, "cipher suites '' are not all known"),
        ({"ciphersuites": "\udcff"}, "are not all known"),
        ({"alpn": ("",)}, "protocols '' cannot be offered: --ssl-alpn takes"),
        ({"alpn": ("h2", "a" * 300)}, "cannot be offered: --ssl-alpn takes"),
        ({"alpn": ("\udcff",)}, "cannot be offered: --ssl-alpn takes"),
        ({"server_name": "a..b"}, "server name 'a..b' is no host name"),
        ({"ca_certs": "no-such"}, "no certificate can be read from no-such"),
    ],
)
def test_what_is_not_known(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Client(Settings(**settings))


@pytest.mark.parametrize(
    ("expected_name", "kind"),
    [("localhost", None), ("127.0.0.1", None), ("other.example", "TLS: certificate verify failed")],
)
@both_versions
def test_verification(site: Running, identity: Identity, expected_name: str, kind: str | None, tls: str) -> None:
    tally = run(site.port, count=2, tls=tls, ca_certs=identity.ca, expected_name=expected_name)
    assert dict(tally.errors) == ({kind: 2} if kind else {})


def test_an_authority_that_is_not_theirs(site: Running, identity: Identity) -> None:
    assert "TLS: certificate verify failed" in run(site.port, count=1, ca_certs=identity.cert).errors


def test_the_server_name_and_alpn_are_sent(identity: Identity) -> None:
    seen: list[tuple[str | None, str | None]] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert, identity.key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    names: list[str | None] = []
    context.sni_callback = lambda _, name, __: names.append(name)

    def look(connection: socket.socket, _: int) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            seen.append((names.pop() if names else None, tls.selected_alpn_protocol()))
            tls.recv(1)

    with behaving(look) as port:
        run(port, count=1, server_name="some.example", alpn=("http/1.1",))
        run(port, count=1)
    assert seen == [("some.example", "http/1.1"), (None, None)]


def test_it_comes_from_several_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlsserver.bench.addresses.PORTS_OF_A_SOURCE", 2)
    seen = []
    with behaving(lambda connection, _: seen.append(connection.getpeername()[0])) as port:
        run(port, count=6, concurrency=1)
    assert seen == ["127.0.0.1"] * 2 + ["127.0.0.2"] * 2 + ["127.0.0.3"] * 2


def test_no_handshake_is_reset(identity: Identity) -> None:
    """Unread tickets would make closing a reset; the goodbye prevents it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert, identity.key)
    ends: list[object] = []

    def end(connection: socket.socket, _: int) -> None:
        tls = context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False)
        ends.append(tls.recv(1))  # b"" is the client's close_notify
        tls.unwrap().close()

    with behaving(end) as port:
        tally = run(port, count=5, concurrency=1)
    assert tally.is_good
    assert ends == [b""] * 5


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().count = 1  # type: ignore[misc]
