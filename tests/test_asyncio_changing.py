"""Changes of a context that is in use: from any thread, made at once or not at all."""

from __future__ import annotations

import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest
from OpenSSL import SSL

from engine_shim import ThreadEngine
from support.asyncio_contexts import client_of, der, put, server_of
from support.ends import shaken, works
from tlsserver import ClientContext, TLSContext
from tlsserver.asyncio.context import SSLContext, create_default_context
from tlsserver.asyncio.plain import ContextError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.certificates import Certificates, Identity
    from support.client_scene import House

pytestmark = pytest.mark.usefixtures("no_ops_left")

context = pytest.fixture(server_of)
client = pytest.fixture(client_of)


def test_nothing_is_made_anew_without_a_change(context: SSLContext, client: SSLContext) -> None:
    assert context.server_context() is context.server_context()
    assert client.client_context() is client.client_context()


def test_a_certificate_is_renewed_while_it_is_in_use(
    certificates: Certificates, context: SSLContext, client: SSLContext
) -> None:
    """New connections have the new one; open ones keep theirs, and go on."""
    renewed = certificates.issue("renewed", "p256")
    with shaken(context, client) as (near, far):
        context.load_cert_chain(renewed.cert, renewed.key)
        with shaken(context, client) as (_, later):
            assert later.tls.peer_chain()[0] == der(renewed)
        near.send(b"still here")
        assert far.receive() == b"still here"


BAD: dict[str, Callable[[Certificates, Path], tuple[Any, ...]]] = {
    "another key": lambda found, _: (found["p256"].cert, found["p384"].key),
    "no key": lambda found, _: (found["p256"].cert,),
    "no file": lambda found, folder: (folder / "nowhere.pem", found["p256"].key),
    "half a file": lambda found, folder: (_half(found["p256"].cert, folder), found["p256"].key),
    "wrong password": lambda found, _: (found["p256"].cert, found["p256"].encrypted_key(b"good"), "bad"),
}


def _half(path: Path, folder: Path) -> Path:
    text = path.read_text()
    half = folder / "half.pem"
    half.write_text(text[: len(text) // 2])
    return half


@pytest.mark.parametrize("name", BAD)
def test_a_failed_reload_keeps_the_last_good_one(
    name: str, certificates: Certificates, context: SSLContext, client: SSLContext, tmp_path: Path
) -> None:
    before = context.server_context()
    with pytest.raises((ssl.SSLError, FileNotFoundError)):
        context.load_cert_chain(*BAD[name](certificates, tmp_path))
    assert context.server_context() is before
    assert works(context, client)


def test_files_are_read_when_they_are_loaded_and_not_again(certificates: Certificates, client: SSLContext) -> None:
    """A server that gives its privileges up, or whose files are being replaced, can change the rest all the same."""
    gone = certificates.issue("gone", "p256")
    context = server_of(gone)
    for path in (gone.cert, gone.key):
        path.unlink()
    assert works(context, client)
    context.set_alpn_protocols(["h2"])
    assert works(context, client)


CONTRADICTIONS: dict[str, Callable[[SSLContext], object]] = {
    "clients without authorities": lambda c: put(c, "verify_mode", ssl.CERT_REQUIRED),
    "no version": lambda c: put(c, "options", c.options | ssl.OP_NO_TLSv1_2 | ssl.OP_NO_TLSv1_3),
    "names of clients": lambda c: put(c, "check_hostname", True),
    "versions crossed": lambda c: (
        put(c, "maximum_version", ssl.TLSVersion.TLSv1_2),
        put(c, "minimum_version", ssl.TLSVersion.TLSv1_3),
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_what_cannot_work_changes_nothing_that_is_in_use(name: str, context: SSLContext, client: SSLContext) -> None:
    context.server_context()
    with pytest.raises(ContextError):
        CONTRADICTIONS[name](context)
    assert context.verify_mode == ssl.CERT_NONE
    assert not context.check_hostname
    assert works(context, client)


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_the_same_is_told_at_the_start_where_nothing_is_in_use(name: str, context: SSLContext) -> None:
    CONTRADICTIONS[name](context)
    with pytest.raises(ContextError):
        context.server_context()


def test_tickets_are_good_after_a_change_that_lets_nobody_else_in(
    identity: Identity, certificates: Certificates
) -> None:
    context = server_of(identity)
    plain = ssl.create_default_context(cafile=identity.ca)
    plain.maximum_version = ssl.TLSVersion.TLSv1_2
    session = _session(context, plain, None)[0]
    renewed = certificates.issue("renewed-again", "p256")
    context.load_cert_chain(renewed.cert, renewed.key)
    assert _session(context, plain, session)[1]


def test_tickets_are_not_good_after_clients_are_asked_for_more(identity: Identity, house: House) -> None:
    context = server_of(identity)
    plain = ssl.create_default_context(cafile=identity.ca)
    plain.maximum_version = ssl.TLSVersion.TLSv1_2
    plain.load_cert_chain(house.good.cert, house.good.key)
    context.load_verify_locations(house.root.cert)
    session = _session(context, plain, None)[0]
    context.verify_mode = ssl.CERT_OPTIONAL
    session, reused = _session(context, plain, session)
    assert not reused
    context.verify_mode = ssl.CERT_REQUIRED
    session, reused = _session(context, plain, session)
    assert not reused
    context.verify_flags |= 0x40  # VERIFY_ALLOW_PROXY_CERTS, which has no name in Python 3.10's ssl
    assert not _session(context, plain, session)[1]


def _session(context: SSLContext, plain: ssl.SSLContext, session: Any) -> tuple[Any, bool]:
    with shaken(context, plain, session=session) as (near, far):
        assert near.done, near.error
        return far.tls.session, bool(far.tls.session_reused)


def test_changes_from_other_threads(certificates: Certificates, client: SSLContext) -> None:
    """Each connection has one of the certificates, whole; the loop's thread never fails."""
    pair = [certificates["p256"], certificates.issue("turn", "p256")]
    context = server_of(pair[0])
    context.server_context()
    stop, failed = threading.Event(), []

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            one = pair[number % 2]
            try:
                context.load_cert_chain(one.cert, one.key)
                context.set_alpn_protocols(["h2"] if number % 3 else ["h2", "http/1.1"])
            except Exception as error:  # noqa: BLE001 - told below
                failed.append(error)
                return

    threads = [threading.Thread(target=change) for _ in range(3)]
    for thread in threads:
        thread.start()
    seen = set()
    for _ in range(60):
        with shaken(context, client) as (near, far):
            assert near.done, near.error
            seen.add(far.tls.peer_chain()[0])
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed
    assert seen <= {der(one) for one in pair}


def test_the_loop_does_not_wait_for_a_change(certificates: Certificates, context: SSLContext) -> None:
    """What takes long is a key that is slow to load; who asks for the context meanwhile has the last one."""
    before = context.server_context()
    other = certificates.issue("slow", "p256")
    asked, go_on = threading.Event(), threading.Event()

    def password() -> str:
        asked.set()
        assert go_on.wait(30)
        return "slow"

    thread = threading.Thread(target=context.load_cert_chain, args=(other.cert, other.encrypted_key(b"slow"), password))
    thread.start()
    assert asked.wait(30)
    assert context.server_context() is before
    go_on.set()
    thread.join()
    assert context.server_context() is not before


def test_engines_are_made_once(certificates: Certificates) -> None:
    context = SSLContext(offload="threads", offload_threads=1)
    for name in ("first", "second"):
        one = certificates.issue(f"engines-{name}", "p256")
        context.load_cert_chain(one.cert, one.key)
    first = context.server_context().engines
    context.load_cert_chain(one.cert, one.key)
    assert context.server_context().engines == first
    context.close()
    assert first[0].closed
    context.load_cert_chain(one.cert, one.key)
    assert not context.server_context().engines[0].closed
    context.close()


def test_keys_of_several_engines(certificates: Certificates, client: SSLContext) -> None:
    rsa, ec = certificates["rsa2048"], certificates["p256"]
    with ThreadEngine(1) as one, ThreadEngine(1) as two:
        context = SSLContext()
        context.load_cert_chain(rsa.cert, one.load_key(rsa.key))
        context.load_cert_chain(ec.cert, two.load_key(ec.key))
        assert set(context.server_context().engines) == {one, two}
        assert works(context, client)
        del context


def test_a_client_changes_its_mind(context: SSLContext, client: SSLContext, house: House) -> None:
    assert works(context, client)
    client.load_verify_locations(house.root.cert)
    assert works(context, client)
    with pytest.raises(ValueError, match="Cannot set verify_mode to CERT_NONE"):
        client.verify_mode = ssl.CERT_NONE
    fresh = create_default_context(cafile=str(house.root.cert))
    assert not works(context, fresh)


def test_a_server_stops_asking_for_certificates(context: SSLContext, client: SSLContext, house: House) -> None:
    context.load_verify_locations(house.root.cert)
    context.verify_mode = ssl.CERT_REQUIRED
    assert not works(context, client)
    context.verify_mode = ssl.CERT_NONE
    assert context.verify_mode == ssl.CERT_NONE
    assert works(context, client)


def test_a_server_gives_tickets_again(context: SSLContext, identity: Identity) -> None:
    far = ssl.create_default_context(cafile=identity.ca)
    without = context.options | ssl.OP_NO_TICKET
    for options, gives in ((without, False), (context.options, True)):
        context.options = options
        with shaken(context, far) as (near, there):
            near.send(b"x")
            assert there.receive() == b"x"
            assert bool(there.tls.session and there.tls.session.has_ticket) is gives


def test_changes_of_several_threads_are_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread's change comes while this one's value is being looked at, and must not be lost."""
    context = SSLContext()
    held = context._lock

    class Meeting:
        def __enter__(self) -> None:
            monkeypatch.setattr(context, "_lock", held)
            context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
            held.acquire()

        def __exit__(self, *_error: object) -> None:
            held.release()

    monkeypatch.setattr(context, "_lock", Meeting())
    context.set_alpn_protocols(["h2"])
    assert context._asked.options == {"alpn": ("h2",), "ciphers": "ECDHE-RSA-AES128-GCM-SHA256"}


def test_a_reload_of_a_given_context_fails_as_pythons_does(identity: Identity, certificates: Certificates) -> None:
    made_elsewhere = SSL.Context(SSL.TLS_SERVER_METHOD)
    made_elsewhere.use_certificate_chain_file(str(identity.cert))
    made_elsewhere.use_privatekey_file(str(identity.key))
    other = certificates["p384"]
    for given, key in (
        (TLSContext(identity.cert, identity.key), identity.key),
        (TLSContext.from_pyopenssl(made_elsewhere), other.key),
        (ClientContext(ca_certs=identity.ca), other.key),
    ):
        context = SSLContext.from_context(given)
        with pytest.raises(ssl.SSLError):
            context.load_cert_chain(other.cert, key)
