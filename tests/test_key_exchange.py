"""Key pairs made ahead: every handshake goes as before, each pair is used once, and nobody else has heard of it."""

from __future__ import annotations

import ctypes
import os
import re
from typing import TYPE_CHECKING

import pytest
from OpenSSL import SSL, crypto

import engine_shim
from engine_shim import Status, ThreadEngine, key_exchange
from support.ahead import address, ahead_context, demand_certificate, used, with_identity, x25519_client
from support.certificates import KINDS, ML_DSA
from support.groups import openssl_function, set_groups
from support.pair import STATIC_RSA, VERSIONS, Pair, client_context
from tlsserver import TLSContext

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Certificates, Identity

pytestmark = pytest.mark.skipif(
    key_exchange.why_unavailable() is not None, reason=f"no key pairs made ahead: {key_exchange.why_unavailable()}"
)

BATCH = 8
HYBRID = "X25519MLKEM768"
# The server's share in its ServerHello (RFC 8446, section 4.2.8): extension 51, group 29, 32 bytes.
SHARE = re.compile(rb"\x00\x33\x00\x24\x00\x1d\x00\x20(.{32})", re.DOTALL)


def hello(near: SSL.Context, far: SSL.Context) -> bytes:
    """Let a server answer a ClientHello; its bytes."""
    ends = SSL.Connection(near, None), SSL.Connection(far, None)
    ends[0].set_accept_state()
    ends[1].set_connect_state()
    for me in (1, 0):
        with pytest.raises(SSL.WantReadError):
            ends[me].do_handshake()
        ends[1 - me].bio_write(sent := ends[me].bio_read(1 << 16))
    return sent


def share(near: SSL.Context, far: SSL.Context) -> bytes:
    found = SHARE.search(hello(near, far))
    assert found
    return found[1]


# --- Every handshake as before ---


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", [*KINDS, *ML_DSA])
def test_mutual_tls(certificates: Certificates, kind: str, version: str) -> None:
    """The client's key of every kind, and the server's of the same."""
    if kind in ML_DSA and version == "1.2":
        pytest.skip("ML-DSA is for TLS 1.3")
    identity = certificates[kind]
    with ThreadEngine() as engine:
        near = demand_certificate(ahead_context(), identity)
        near.use_certificate_chain_file(str(identity.cert))
        engine.load_key(identity.key).use(near)
        far = with_identity(x25519_client(identity, version), identity)
        before = used()
        with Pair(near, far) as pair:
            assert pair.finish() is Status.DONE, pair.server.errors()
            assert pair.server.group == ordinary_group(identity, version)
            assert pair.echo() == b"ping"
            shown = pair.connection.get_peer_certificate()
            assert shown is not None
            assert crypto.dump_certificate(crypto.FILETYPE_PEM, shown).strip() in identity.cert.read_bytes()
        assert used() == before + 1


def ordinary_group(identity: Identity, version: str) -> str | None:
    """How an ordinary Context names the group of the same handshake."""
    near = with_identity(SSL.Context(SSL.TLS_SERVER_METHOD), identity)
    with Pair(near, x25519_client(identity, version), offloaded=False) as pair:
        assert pair.finish() is Status.DONE
        return pair.server.group


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["p256", "ed25519"])
def test_client_without_a_certificate_is_refused(certificates: Certificates, kind: str, version: str) -> None:
    identity = certificates[kind]
    near = demand_certificate(with_identity(ahead_context(), identity), identity)
    with Pair(near, x25519_client(identity, version), offloaded=False) as pair:
        assert pair.until_parked() is Status.ERROR
        assert "certificate" in pair.server.errors()[0].text


@pytest.mark.parametrize(
    ("groups", "takes"),
    [(["P-256"], 0), (["P-384"], 0), (["P-521"], 0), (["X448"], 0), (["X25519"], 1), ([HYBRID], 1), (["ffdhe2048"], 0)],
)
@pytest.mark.parametrize("retry", [False, True])
def test_groups(identity: Identity, groups: list[str], takes: int, retry: bool) -> None:
    """All groups work, with a HelloRetryRequest too; a hybrid takes a pair for its inner X25519."""
    near, far = with_identity(ahead_context(), identity), client_context(identity, "1.3")
    first = [] if not retry else ["X448"] if groups != ["X448"] else ["P-521"]
    if not set_groups(far, *first, *groups):
        pytest.skip(f"this OpenSSL has no {groups[0]}")
    assert set_groups(near, *groups)
    before = used()
    with Pair(near, far, offloaded=False) as pair:
        assert pair.finish() is Status.DONE, pair.server.errors()
        assert pair.echo() == b"ping"
    assert used() == before + takes


def test_static_rsa(certificates: Certificates) -> None:
    identity = certificates["rsa2048"]
    near = with_identity(ahead_context(), identity)
    near.set_cipher_list(STATIC_RSA.encode())
    with Pair(near, client_context(identity, "1.2", STATIC_RSA), offloaded=False) as pair:
        assert pair.finish() is Status.DONE


@pytest.mark.parametrize("version", VERSIONS)
def test_sessions_resume(identity: Identity, version: str) -> None:
    """Also with the client's certificate, which the session then holds."""
    near = demand_certificate(with_identity(ahead_context(), identity), identity)
    near.set_session_id(b"tests")
    far = with_identity(x25519_client(identity, version), identity)
    with Pair(near, far, offloaded=False) as pair:
        assert pair.finish() is Status.DONE
        pair.echo()
        with Pair(near, far, offloaded=False) as again:  # the first one is open: a session without an end is forgotten
            again.client.set_session(pair.client.get_session())  # type: ignore[arg-type]
            assert again.finish() is Status.DONE
            assert again.server.reused
            assert again.connection.get_peer_certificate() is not None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("to_ahead", [False, True])
def test_switched_by_server_name(certificates: Certificates, version: str, to_ahead: bool) -> None:
    """One Context ours, the other not: a connection may go from either to the other."""
    first, second = certificates["rsa2048"], certificates["p256"]
    contexts = [SSL.Context(SSL.TLS_SERVER_METHOD), ahead_context()]
    if not to_ahead:
        contexts.reverse()
    for context, identity in zip(contexts, (first, second), strict=True):
        with_identity(context, identity)
    contexts[0].set_tlsext_servername_callback(lambda connection: connection.set_context(contexts[1]))
    with Pair(contexts[0], x25519_client(first, version), offloaded=False) as pair:
        pair.client.set_tlsext_host_name(b"localhost")
        assert pair.finish() is Status.DONE, pair.server.errors()
        shown = pair.client.get_peer_certificate()
        assert shown is not None
        assert crypto.dump_certificate(crypto.FILETYPE_PEM, shown).strip() in second.cert.read_bytes()
        assert pair.echo() == b"ping"


def test_share_of_zeros_is_refused(identity: Identity) -> None:
    """Its shared secret would be all zero (RFC 8446, section 7.4.2)."""
    near, far = (
        SSL.Connection(with_identity(ahead_context(), identity), None),
        SSL.Connection(x25519_client(identity, "1.3"), None),
    )
    near.set_accept_state()
    far.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        far.do_handshake()
    sent, count = re.subn(rb"(\x00\x1d\x00\x20).{32}", rb"\1" + bytes(32), far.bio_read(1 << 16), flags=re.DOTALL)
    assert count == 1
    near.bio_write(sent)
    with pytest.raises(SSL.Error):
        near.do_handshake()


# --- Each pair is used once ---


def test_pairs_are_made_in_batches_and_used_once(identity: Identity) -> None:
    near, far = with_identity(ahead_context(), identity), x25519_client(identity, "1.3")
    before = engine_shim.counters()
    shares = [share(near, far) for _ in range(3 * BATCH)]
    after = engine_shim.counters()
    assert len(set(shares)) == 3 * BATCH
    assert after.x25519_used - before.x25519_used == 3 * BATCH
    assert after.x25519_made - before.x25519_made == 3 * BATCH
    assert after.x25519_ahead == before.x25519_ahead < BATCH


def test_child_begins_with_an_empty_store(identity: Identity) -> None:
    near, far = with_identity(ahead_context(), identity), x25519_client(identity, "1.3")
    while not engine_shim.counters().x25519_ahead:
        share(near, far)
    held = engine_shim.counters().x25519_ahead
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            empty = engine_shim.counters().x25519_ahead == 0
            theirs = b"".join(share(near, far) for _ in range(BATCH))
            os.write(writing, bytes([empty]) + theirs)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    ours = [share(near, far) for _ in range(BATCH)]
    assert answer[:1] == b"\x01"
    assert len(answer) == 1 + 32 * BATCH
    assert engine_shim.counters().x25519_ahead == held  # the parent kept what it had
    assert not {answer[at : at + 32] for at in range(1, len(answer), 32)} & set(ours)


# --- tlsserver's Contexts ---


@pytest.mark.parametrize("ahead", [False, True])
def test_context_of_the_server(identity: Identity, ahead: bool) -> None:
    context = TLSContext(identity.cert, identity.key, key_exchange_ahead=ahead)
    before = used()
    with Pair(context.pyopenssl, x25519_client(identity), offloaded=False) as pair:
        assert pair.finish() is Status.DONE
    assert used() - before == ahead


def test_context_of_others_stays(identity: Identity) -> None:
    theirs = with_identity(SSL.Context(SSL.TLS_SERVER_METHOD), identity)
    was = address(theirs)
    assert address(TLSContext.from_pyopenssl(theirs).pyopenssl) == was


@pytest.fixture(autouse=True)
def nothing_on_the_queue() -> Iterator[None]:
    """No test leaves an error behind on OpenSSL's queue."""
    yield
    assert openssl_function("ERR_peek_error", ctypes.c_ulong)() == 0
