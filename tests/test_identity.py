"""Certificates of single connections: every kind of key, in an engine and without one, both versions of TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from OpenSSL import crypto

from engine_shim import (
    KeyLoadError,
    KeyMismatchError,
    KeyPasswordError,
    ManualEngine,
    ShimError,
    Status,
    counters,
)
from engine_shim.identity import Identity
from engine_shim.server_names import NameTable
from support.certificates import ML_DSA
from support.pair import Pair, client_context, server_context
from tlsserver.testing import Script, ScriptedProvider

if TYPE_CHECKING:
    from support.certificates import Certificates
    from support.certificates import Identity as Files

# ML-DSA is for TLS 1.3 only.
CASES = [
    *[
        (kind, version)
        for kind in ("rsa2048", "p256", "p384", "ed25519", "ed448", "rsa-pss")
        for version in ("1.2", "1.3")
    ],
    *[(kind, "1.3") for kind in list(ML_DSA)[:1]],
]


def scene(
    identity: Identity, main: Files, client: Files, version: str, ciphers: str | None = None
) -> tuple[Pair, NameTable]:
    """Give a pair whose client asks for localhost, of which the table knows the identity."""
    context = server_context(main, None)
    table = NameTable(context, {"localhost": 1}, identities=2, loaded_most=2)
    table.put(1, identity)
    pair = Pair(context, client_context(client, version, ciphers))
    pair.client.set_tlsext_host_name(b"localhost")
    return pair, table


def served(pair: Pair) -> bytes:
    found = pair.client.get_peer_certificate()
    assert found is not None
    return found.digest("sha256")


def digest(files: Files) -> bytes:
    return crypto.load_certificate(crypto.FILETYPE_PEM, files.cert.read_bytes()).digest("sha256")


@pytest.mark.parametrize(("kind", "version"), CASES)
def test_parked_with_every_kind_of_key(certificates: Certificates, kind: str, version: str) -> None:
    files, main = certificates[kind], certificates["p521"]
    with ManualEngine() as engine:
        identity = Identity()
        identity.add(files.cert.read_bytes(), engine.load_key(files.key))
        pair, _ = scene(identity, main, files, version)
        with pair:
            assert pair.until_parked() is Status.WANT_ASYNC
            engine.perform()
            assert pair.finish() is Status.DONE, pair.server.errors()
            assert served(pair) == digest(files)
            assert pair.echo() == b"ping"


@pytest.mark.parametrize(("kind", "version"), CASES)
def test_without_an_engine(certificates: Certificates, kind: str, version: str) -> None:
    files, main = certificates[kind], certificates["p521"]
    identity = Identity()
    identity.add(files.cert.read_bytes(), files.key)
    identity.check(server_context(main, None))
    pair, _ = scene(identity, main, files, version)
    with pair:
        assert pair.finish() is Status.DONE, pair.server.errors()
        assert (served(pair), pair.parks) == (digest(files), 0)


@pytest.mark.parametrize(("kind", "suite"), [("rsa2048", "RSA"), ("p256", "ECDSA")])
def test_the_client_chooses_among_several(certificates: Certificates, kind: str, suite: str) -> None:
    """By its suites in TLS 1.2; TLS 1.3, where it does by its signature algorithms, is in test_server_names.py."""
    both = Identity()
    for one in ("rsa2048", "p256"):
        both.add(certificates[one].cert.read_bytes(), certificates[one].key.read_bytes())
    files = certificates[kind]
    pair, _ = scene(both, certificates["p521"], files, "1.2", f"ECDHE-{suite}-AES128-GCM-SHA256")
    with pair:
        assert pair.finish() is Status.DONE, pair.server.errors()
        assert served(pair) == digest(files)


def test_a_chain_is_sent(certificates: Certificates) -> None:
    files = certificates["p256"]
    identity = Identity()
    identity.add(files.key.read_bytes() + files.cert.read_bytes() + files.ca.read_bytes(), files.key)
    pair, _ = scene(identity, certificates["p521"], files, "1.3")
    with pair:
        assert pair.finish() is Status.DONE
        assert len(pair.client.get_peer_cert_chain() or ()) == 2


def test_bad_input(certificates: Certificates) -> None:
    files, other = certificates["p256"], certificates["rsa2048"]
    pem, identity = files.cert.read_bytes(), Identity()
    with pytest.raises(KeyMismatchError):
        identity.add(pem, other.key)
    with pytest.raises(ShimError, match="no certificate"):
        identity.add(b"", files.key)
    with pytest.raises(ShimError, match="no certificate"):
        identity.add(pem + pem.replace(b"MII", b"!!!", 1), files.key)
    with pytest.raises(KeyLoadError):
        identity.add(pem, b"nothing")
    with pytest.raises(KeyPasswordError):
        identity.add(pem, files.encrypted_key(b"right"), b"wrong")
    with pytest.raises(OSError, match="No such file"):
        identity.add(pem, "no.such.key")
    with pytest.raises(ShimError, match="longer"):
        identity.add(pem + b"\n" * (1 << 20), files.key)
    identity.add(pem, files.encrypted_key(b"right"), "right")


def test_only_so_many(certificates: Certificates) -> None:
    files, identity = certificates["p256"], Identity()
    for _ in range(8):
        identity.add(files.cert.read_bytes(), files.key)
    with pytest.raises(IndexError):
        identity.add(files.cert.read_bytes(), files.key)


def test_nothing_is_left(certificates: Certificates) -> None:
    files = certificates["p256"]
    with ManualEngine() as engine:
        before = counters().keys_alive
        identity = Identity()
        identity.add(files.cert.read_bytes(), engine.load_key(files.key))
        pair, table = scene(identity, certificates["p521"], files, "1.3")
        assert pair.until_parked() is Status.WANT_ASYNC
        pair.close()
        del identity, pair, table
        assert counters().keys_alive == before


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("kind", ["rsa2048", "p256"])
def test_a_third_partys_key(certificates: Certificates, kind: str, version: str) -> None:
    """It pauses the job by itself, with fds of its own."""
    files = certificates[kind]
    with ScriptedProvider() as scripted:
        scripted.script(Script(told=False, pauses=2))
        identity = Identity()
        identity.add(files.cert.read_bytes(), scripted.load_key(files.key))
        pair, _ = scene(identity, certificates["p521"], files, version)
        with pair:
            assert pair.finish() is Status.DONE, pair.server.errors()
            assert (served(pair), pair.parks) == (digest(files), 2)
