"""Key pairs made ahead: every handshake goes as before, each pair is used once, and nobody else has heard of it."""

from __future__ import annotations

import ctypes
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from OpenSSL import SSL, crypto

import engine_shim
from engine_shim import Status, ThreadEngine, key_exchange
from engine_shim.native import address_of, ffi, lib
from support import apart
from support.certificates import KINDS, ML_DSA
from support.groups import openssl_function, set_groups
from support.pair import STATIC_RSA, VERSIONS, Pair, client_context
from tlsserver import TLSContext

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.certificates import Certificates, Identity

pytestmark = pytest.mark.skipif(
    key_exchange.why_unavailable() is not None, reason=f"no key pairs made ahead: {key_exchange.why_unavailable()}"
)

BATCH = 8
HYBRID = "X25519MLKEM768"
# The server's share in its ServerHello (RFC 8446, section 4.2.8): extension 51, group 29, 32 bytes.
SHARE = re.compile(rb"\x00\x33\x00\x24\x00\x1d\x00\x20(.{32})", re.DOTALL)


def ahead_context() -> SSL.Context:
    context = key_exchange.maybe_context(SSL.TLS_SERVER_METHOD)
    assert context is not None
    return context


def server(identity: Identity) -> SSL.Context:
    context = ahead_context()
    context.use_certificate_chain_file(str(identity.cert))
    context.use_privatekey_file(str(identity.key))
    return context


def used() -> int:
    return engine_shim.counters().x25519_used


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


def x25519_client(identity: Identity, version: str | None = None) -> SSL.Context:
    client = client_context(identity, version)
    assert set_groups(client, "X25519", "P-256", "P-384", "P-521")
    return client


# --- Every handshake as before ---


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", [*KINDS, *ML_DSA])
def test_mutual_tls(certificates: Certificates, kind: str, version: str) -> None:
    """The client's key of every kind, and the server's of the same."""
    if kind in ML_DSA and version == "1.2":
        pytest.skip("ML-DSA is for TLS 1.3")
    identity = certificates[kind]
    with ThreadEngine() as engine:
        near = ahead_context()
        near.use_certificate_chain_file(str(identity.cert))
        engine.load_key(identity.key).use(near)
        near.load_verify_locations(str(identity.ca))
        near.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, None)
        far = x25519_client(identity, version)
        far.use_certificate_chain_file(str(identity.cert))
        far.use_privatekey_file(str(identity.key))
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
    near = SSL.Context(SSL.TLS_SERVER_METHOD)
    near.use_certificate_chain_file(str(identity.cert))
    near.use_privatekey_file(str(identity.key))
    with Pair(near, x25519_client(identity, version), offloaded=False) as pair:
        assert pair.finish() is Status.DONE
        return pair.server.group


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["p256", "ed25519"])
def test_client_without_a_certificate_is_refused(certificates: Certificates, kind: str, version: str) -> None:
    identity = certificates[kind]
    near = server(identity)
    near.load_verify_locations(str(identity.ca))
    near.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, None)
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
    near, far = server(identity), client_context(identity, "1.3")
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
    near = server(identity)
    near.set_cipher_list(STATIC_RSA.encode())
    with Pair(near, client_context(identity, "1.2", STATIC_RSA), offloaded=False) as pair:
        assert pair.finish() is Status.DONE


@pytest.mark.parametrize("version", VERSIONS)
def test_sessions_resume(identity: Identity, version: str) -> None:
    """Also with the client's certificate, which the session then holds."""
    near, far = server(identity), x25519_client(identity, version)
    near.set_session_id(b"tests")
    near.load_verify_locations(str(identity.ca))
    near.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, None)
    far.use_certificate_chain_file(str(identity.cert))
    far.use_privatekey_file(str(identity.key))
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
        context.use_certificate_chain_file(str(identity.cert))
        context.use_privatekey_file(str(identity.key))
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
    near, far = SSL.Connection(server(identity), None), SSL.Connection(x25519_client(identity, "1.3"), None)
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
    near, far = server(identity), x25519_client(identity, "1.3")
    before = engine_shim.counters()
    shares = [share(near, far) for _ in range(3 * BATCH)]
    after = engine_shim.counters()
    assert len(set(shares)) == 3 * BATCH
    assert after.x25519_used - before.x25519_used == 3 * BATCH
    assert after.x25519_made - before.x25519_made == 3 * BATCH
    assert after.x25519_ahead == before.x25519_ahead < BATCH


def test_child_begins_with_an_empty_store(identity: Identity) -> None:
    near, far = server(identity), x25519_client(identity, "1.3")
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


# --- A Context like any other one ---

READINGS = {
    "mode": (33, 0),
    "least version": (130, 0),
    "greatest version": (131, 0),
    "session cache": (45, 0),
    "cache size": (43, 0),
    "read ahead": (40, 0),
}


def address(context: SSL.Context) -> int:
    return int(ffi.cast("uintptr_t", address_of(context._context)))


def settings(context: SSL.Context) -> dict[str, Any]:
    """What pyOpenSSL, OpenSSL and its configuration have set up in a fresh Context."""
    control = openssl_function(
        "SSL_CTX_ctrl", ctypes.c_long, ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p
    )
    found: dict[str, Any] = {name: control(address(context), code, 0, None) for name, (code, _) in READINGS.items()}
    found["options"] = context.set_options(0)
    found["ciphers"] = SSL.Connection(context, None).get_cipher_list()
    found["timeout"] = context.get_timeout()
    found["verify"] = context.get_verify_mode(), context.get_verify_depth()
    found["attributes"] = {name for name in vars(context) if name != "_context"}
    return found


@pytest.mark.parametrize("method", [SSL.TLS_METHOD, SSL.TLS_SERVER_METHOD, SSL.TLS_CLIENT_METHOD, SSL.TLSv1_2_METHOD])
def test_settings_are_an_ordinary_contexts(method: int) -> None:
    made = key_exchange.maybe_context(method)
    assert made is not None
    assert settings(made) == settings(SSL.Context(method))


CONFIGURATION = """\
openssl_conf = main
[main]
ssl_conf = ssl
[ssl]
system_default = everywhere
[everywhere]
MinProtocol = TLSv1.3
Ciphersuites = TLS_CHACHA20_POLY1305_SHA256
CipherString = ECDHE+AESGCM:@SECLEVEL=3
Options = ServerPreference
"""


def compare_settings() -> None:
    made = key_exchange.maybe_context(SSL.TLS_SERVER_METHOD)
    assert made is not None, key_exchange.why_unavailable()
    one, other = settings(made), settings(SSL.Context(SSL.TLS_SERVER_METHOD))
    assert one == other, (one, other)
    print(one["least version"], one["ciphers"][0])


def test_configuration_counts(tmp_path: Path) -> None:
    """What openssl.cnf says of every SSL_CTX holds for ours."""
    path = tmp_path / "openssl.cnf"
    path.write_text(CONFIGURATION)
    printed = apart.run(compare_settings, variables={"OPENSSL_CONF": str(path)})
    assert printed.split() == [str(SSL.TLS1_3_VERSION), "TLS_CHACHA20_POLY1305_SHA256"]


def test_client_side(identity: Identity) -> None:
    """A client's Context can have it, too: its share is made ahead."""
    near = SSL.Context(SSL.TLS_SERVER_METHOD)
    near.use_certificate_chain_file(str(identity.cert))
    near.use_privatekey_file(str(identity.key))
    far = key_exchange.maybe_context(SSL.TLS_CLIENT_METHOD)
    assert far is not None
    far.load_verify_locations(str(identity.ca))
    far.set_verify(SSL.VERIFY_PEER, None)
    before = used()
    with Pair(near, far, offloaded=False) as pair:
        assert pair.finish() is Status.DONE
    assert used() > before


# --- tlsserver's Contexts ---


@pytest.mark.parametrize("ahead", [False, True])
def test_context_of_the_server(identity: Identity, ahead: bool) -> None:
    context = TLSContext(identity.cert, identity.key, key_exchange_ahead=ahead)
    before = used()
    with Pair(context.pyopenssl, x25519_client(identity), offloaded=False) as pair:
        assert pair.finish() is Status.DONE
    assert used() - before == ahead


def test_context_of_others_stays(identity: Identity) -> None:
    theirs = SSL.Context(SSL.TLS_SERVER_METHOD)
    theirs.use_certificate_chain_file(str(identity.cert))
    theirs.use_privatekey_file(str(identity.key))
    was = address(theirs)
    assert address(TLSContext.from_pyopenssl(theirs).pyopenssl) == was


# --- Nobody else has heard of it ---


def providers() -> list[str]:
    """Name the providers of the default library context."""
    names: list[str] = []
    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    name_of = openssl_function("OSSL_PROVIDER_get0_name", ctypes.c_char_p, ctypes.c_void_p)

    @callback
    def note(provider: int, _: int | None) -> int:
        names.append(name_of(provider).decode())
        return 1

    openssl_function("OSSL_PROVIDER_do_all", ctypes.c_int, ctypes.c_void_p, callback, ctypes.c_void_p)(None, note, None)
    return sorted(names)


def provider_of_plain_keys() -> str:
    """Name the provider that has a new X25519 key of the default library context."""
    pointer = ctypes.c_void_p
    maker = openssl_function("EVP_PKEY_CTX_new_from_name", pointer, pointer, ctypes.c_char_p, ctypes.c_char_p)(
        None, b"X25519", None
    )
    public = ctypes.create_string_buffer(b"\x09".ljust(32, b"\0"), 32)
    parameters = ffi.new("uintptr_t[10]")  # two OSSL_PARAMs: key, type, data, size, returned size
    name = ctypes.create_string_buffer(b"pub")
    parameters[0], parameters[1] = ctypes.addressof(name), 5
    parameters[2], parameters[3] = ctypes.addressof(public), 32
    key = pointer()
    assert openssl_function("EVP_PKEY_fromdata_init", ctypes.c_int, pointer)(maker) == 1
    made = openssl_function("EVP_PKEY_fromdata", ctypes.c_int, pointer, pointer, ctypes.c_int, pointer)
    assert made(maker, ctypes.byref(key), 0x86, int(ffi.cast("uintptr_t", parameters))) == 1
    holder = openssl_function("EVP_PKEY_get0_provider", pointer, pointer)(key)
    name_of = openssl_function("OSSL_PROVIDER_get0_name", ctypes.c_char_p, pointer)
    found = str(name_of(holder).decode())
    openssl_function("EVP_PKEY_free", None, pointer)(key)
    openssl_function("EVP_PKEY_CTX_free", None, pointer)(maker)
    return found


def use_elsewhere(identity_cert: str, identity_key: str) -> None:
    """Use X25519 in all the ways that are not ours, and see that none of them takes a pair or leaves the provider."""
    import ssl

    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    before = engine_shim.counters()
    one, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    assert one.exchange(other.public_key()) == other.exchange(one.public_key())
    assert provider_of_plain_keys() == "default"
    near = SSL.Context(SSL.TLS_SERVER_METHOD)
    near.use_certificate_chain_file(identity_cert)
    near.use_privatekey_file(identity_key)
    for version in VERSIONS.values():
        far = SSL.Context(SSL.TLS_CLIENT_METHOD)
        far.set_max_proto_version(version)
        with Pair(near, far, offloaded=False) as pair:
            assert pair.finish() is Status.DONE
    client = ssl.create_default_context()
    ends = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client.wrap_bio(*ends, server_hostname="localhost").do_handshake()
    after = engine_shim.counters()
    assert (after.x25519_made, after.x25519_used) == (before.x25519_made, before.x25519_used)


def use_ours(identity_cert: str, identity_key: str) -> None:
    near = ahead_context()
    near.use_certificate_chain_file(identity_cert)
    near.use_privatekey_file(identity_key)
    before = used()
    for version in VERSIONS.values():
        far = SSL.Context(SSL.TLS_CLIENT_METHOD)
        far.set_max_proto_version(version)
        with Pair(near, far, offloaded=False) as pair:
            assert pair.finish() is Status.DONE
            assert pair.echo() == b"ping"
    assert used() == before + len(VERSIONS)


def forget_methods() -> None:
    """Let OpenSSL forget what it has fetched in the default library context."""
    assert lib.openssl_provider_set_query(b"") == lib.SHIM_OK


def use_in_order(order: str, cert: str, key: str) -> None:
    """O: others, A: ours, F: the caches are flushed."""
    engine_shim.attach()
    at_first = providers()
    for step in order:
        if step == "F":
            forget_methods()
        else:
            (use_ours if step == "A" else use_elsewhere)(cert, key)
    assert providers() == at_first, providers()
    print("done")


@pytest.mark.parametrize("order", ["OAO", "AOA", "AFOAFO", "FAOFOA"])
def test_others_stay_with_openssl(identity: Identity, order: str) -> None:
    assert apart.run(use_in_order, order, identity.cert, identity.key) == "done\n"


# --- Where there is none ---


def set_query() -> None:
    assert key_exchange.why_unavailable() is None
    assert lib.openssl_provider_set_query(b"fips=yes") == lib.SHIM_OK
    print(key_exchange.why_unavailable())
    assert key_exchange.maybe_context(SSL.TLS_SERVER_METHOD) is None


def test_default_query_is_heeded() -> None:
    assert "default property query" in apart.run(set_query)


def load_another() -> None:
    from tlsserver.testing import ScriptedProvider

    with ScriptedProvider() as made, made.engine.prefer():
        print(key_exchange.why_unavailable())
        assert key_exchange.maybe_context(SSL.TLS_SERVER_METHOD) is None


def test_another_provider_is_heeded() -> None:
    assert "a provider beside OpenSSL's own" in apart.run(load_another)


@pytest.fixture(autouse=True)
def nothing_on_the_queue() -> Iterator[None]:
    """No test leaves an error behind on OpenSSL's queue."""
    yield
    assert openssl_function("ERR_peek_error", ctypes.c_ulong)() == 0
