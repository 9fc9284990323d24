"""A client's context: whom it trusts, whom it expects, and whose key it shows, against Python's own servers."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from engine_shim import KeyMismatchError, ManualEngine, Status, ThreadEngine
from support import chains
from support.client_authority import SERVER
from support.ends import PythonEnd, our_client, shaken, works
from tlsserver import ClientContext, ConfigurationError, TLSContext

if TYPE_CHECKING:
    from pathlib import Path

    from support.certificates import Certificates, Identity
    from support.client_scene import House

pytestmark = pytest.mark.usefixtures("no_threads_left", "no_ops_left")

both_versions = pytest.mark.parametrize("version", ["1.2", "1.3"])
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def pythons(identity: Identity, version: str | None = None, clients: Path | None = None) -> ssl.SSLContext:
    """Make a server's context of Python's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert, identity.key)
    if version is not None:
        context.minimum_version = context.maximum_version = VERSIONS[version]
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    return context


def trusting(identity: Identity, **options: Any) -> ClientContext:
    return ClientContext(ca_certs=identity.ca, **options)


@both_versions
@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "127.0.0.1", "::1"])
def test_names_and_addresses_that_the_certificate_is_for(identity: Identity, version: str, name: str) -> None:
    assert works(pythons(identity, version), trusting(identity), name)


@both_versions
@pytest.mark.parametrize("name", ["other.example", "localhos", "127.0.0.2", "::2", "xn--lcalhost-n4a"])
def test_names_and_addresses_that_it_is_not_for(identity: Identity, version: str, name: str) -> None:
    with shaken(pythons(identity, version), trusting(identity), name) as (_, client):
        assert client.status is Status.ERROR
        assert "mismatch" in client.error


def test_addresses_are_not_asked_for(identity: Identity) -> None:
    """RFC 6066, section 3: there is no SNI for them."""
    for name, told in (("localhost", "localhost"), ("127.0.0.1", None), ("::1", None)):
        server = TLSContext(identity.cert, identity.key)
        with shaken(server, trusting(identity), name) as (near, _):
            assert near.info().server_name == told


def test_names_in_other_scripts_are_asked_for_as_dns_has_them(certificates: Certificates) -> None:
    identity = certificates.for_names("idna", "p256", "xn--bcher-kva.example")
    assert works(pythons(identity), trusting(identity), "bücher.example")


@pytest.mark.parametrize(
    ("made_for", "asked", "good"),
    [
        ("*.example.com", "www.example.com", True),
        ("*.example.com", "a.b.example.com", False),
        ("*.example.com", "example.com", False),
        ("w*.example.com", "www.example.com", False),  # RFC 9525, 6.3: a whole label
    ],
    ids=["label", "two labels", "no label", "part of a label"],
)
def test_wildcards_as_pythons_ssl_has_them(certificates: Certificates, made_for: str, asked: str, good: bool) -> None:
    identity = certificates.for_names(f"wild-{made_for[0]}", "p256", made_for)
    assert works(pythons(identity), trusting(identity), asked) is good
    python = ssl.create_default_context(cafile=identity.ca)
    assert works(pythons(identity), python, asked) is good


def test_an_address_in_other_digits_is_no_name(certificates: Certificates) -> None:
    """As in Python's ssl: else a wildcard would stand for a part of it."""
    identity = certificates.for_names("wild-address", "p256", "*.0.0.1")
    for far in (trusting(identity), ssl.create_default_context(cafile=identity.ca)):
        assert not works(pythons(identity), far, "\uff11\uff12\uff17.0.0.1")


@pytest.mark.parametrize("name", [b"localhost", b"\x7f\0\0\1", 1])
def test_names_are_text(identity: Identity, name: Any) -> None:
    with pytest.raises(TypeError, match="is no str"), shaken(pythons(identity), trusting(identity), name):
        pass


@pytest.mark.parametrize("name", ["", ".example", "a\0b", "a" * 256, "a..b", "é" * 300, ".".join(["a" * 60] * 5)])
def test_what_is_no_name(identity: Identity, name: str) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"^server name .* (is no host name|cannot be used)"),
        shaken(pythons(identity), trusting(identity), name),
    ):
        pass


def test_a_name_is_needed_where_it_is_checked(identity: Identity) -> None:
    with (
        pytest.raises(ConfigurationError, match="requires server_hostname"),
        shaken(pythons(identity), trusting(identity), None),
    ):
        pass
    assert works(pythons(identity), trusting(identity, check_hostname=False), None)
    assert works(pythons(identity), trusting(identity, check_hostname=False), "other.example")


@both_versions
def test_who_is_not_trusted(identity: Identity, house: House, version: str) -> None:
    stranger = ClientContext(ca_certs=house.root.cert)
    with shaken(pythons(identity, version), stranger) as (_, client):
        assert client.status is Status.ERROR
        assert "unable to get local issuer certificate" in client.error
    assert works(pythons(identity, version), ClientContext(verify=False))
    assert works(pythons(identity, version), ClientContext(verify=False), None)


def test_authorities_in_all_forms(identity: Identity, tmp_path: Path) -> None:
    pem = identity.ca.read_text()
    der = ssl.PEM_cert_to_DER_cert(pem)
    folder = tmp_path / "authorities"
    folder.mkdir()
    (folder / f"{_subject_hash(identity.ca)}.0").write_text(pem)
    for given in ({"ca_data": pem}, {"ca_data": pem.encode()}, {"ca_data": der + der}, {"ca_path": folder}):
        assert works(pythons(identity), ClientContext(**given)), given


def _subject_hash(file: Path) -> str:
    found = subprocess.run(
        ["openssl", "x509", "-noout", "-subject_hash", "-in", file], check=True, capture_output=True, text=True
    )
    return found.stdout.strip()


def test_the_systems_authorities_are_those_of_pythons_ssl(
    identity: Identity, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(identity.ca))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert works(pythons(identity), ClientContext())
    assert not works(pythons(identity), ClientContext(default_paths=False))
    # Those that are given are the only ones.
    assert not works(pythons(identity), ClientContext(ca_path=tmp_path))
    assert works(pythons(identity), ClientContext(ca_path=tmp_path, default_paths=True))


@both_versions
def test_mutual_tls_with_the_key_in_an_engine(identity: Identity, house: House, version: str) -> None:
    server = pythons(identity, version, clients=house.root.cert)
    with ThreadEngine(1) as threads:
        for key in (threads.load_key(house.good.key), house.good.key, None):
            certificate = house.good.cert
            if key is None:
                certificate = house.good.cert.with_suffix(".both")
                certificate.write_bytes(house.good.cert.read_bytes() + house.good.key.read_bytes())
            client = trusting(identity, certificate=certificate, key=key)
            with shaken(server, client) as (near, far):
                assert near.done
                assert far.done
                assert near.tls.getpeercert(binary_form=True) == house.good.der
                assert bool(far.parks) is client.offloaded is bool(client.engines)
        assert threads.statistics().performed == 1
    assert not works(server, trusting(identity))
    assert not works(server, trusting(identity, certificate=house.unknown.cert, key=house.unknown.key))


@both_versions
def test_leaving_while_the_clients_key_is_at_work(identity: Identity, house: House, version: str) -> None:
    with ManualEngine() as manual:
        key = manual.load_key(house.good.key)
        client = trusting(identity, certificate=house.good.cert, key=key, min_version=version, max_version=version)
        for _ in range(20):
            _leave(pythons(identity, version, clients=house.root.cert), client)
        assert manual.pending == 0


def _leave(server: ssl.SSLContext, client: ClientContext) -> None:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        theirs, ours = PythonEnd(server, near, server_side=True), our_client(client, far, "localhost").tls
        while ours.handshake() is not Status.WANT_ASYNC:
            theirs.step()
        assert ours.close()


def test_the_common_name_counts_only_if_it_may(identity: Identity, tmp_path: Path) -> None:
    """As with Python's ssl: where there is no DNS name, and unless it is told not to."""
    root = chains.issue("root", ca=True)
    old = chains.issue("old.example", root, names=())
    cert, key = old.write(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    assert works(server, ClientContext(ca_data=root.pem), "old.example")
    assert not works(server, ClientContext(ca_data=root.pem, check_common_name=False), "old.example")
    assert works(pythons(identity), trusting(identity, check_common_name=False))


def test_revocation_lists(house: House) -> None:
    """They are looked at with a flag alone, as Python's are; without a list for a certificate nobody comes in."""
    revoked = house.root.issue("bad-server", usage=SERVER)
    crl = house.root.revoke(revoked, file="servers.pem").read_text()
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    plain.load_cert_chain(revoked.cert, revoked.key)
    both = house.root.pem.decode() + crl
    assert works(plain, ClientContext(ca_data=both, check_hostname=False))
    flags: dict[str, Any] = {"check_hostname": False, "verify_flags": int(ssl.VERIFY_CRL_CHECK_LEAF)}
    with shaken(plain, ClientContext(ca_data=both, **flags)) as (_, client):
        assert "revoked" in client.error
    with shaken(plain, ClientContext(ca_data=house.root.pem, **flags)) as (_, client):
        assert "unable to get certificate CRL" in client.error


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"ca_certs": "nowhere.pem"}, "authorities nowhere.pem: No such file"),
        ({"ca_path": "nowhere"}, "CA folder nowhere: is no folder"),
        ({"ca_data": "no PEM"}, "damaged"),
        ({"ca_data": b""}, "no certificate of an authority"),
        ({"ca_data": b"\x30\x82\xff\xff"}, "damaged"),
        ({"ca_data": "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"}, "certificate of an authority"),
        ({"key": "k.pem"}, "a key and no certificate"),
        ({"certificate": "nowhere.pem"}, "certificate nowhere.pem: No such file"),
        ({"alpn": ["h2", ""]}, "ALPN"),
        ({"alpn": ["h2", "x" * 256]}, "ALPN"),
        ({"alpn": ["ü"]}, "ALPN"),
        ({"min_version": "1.1"}, "TLS version '1.1' is not known"),
        ({"min_version": "1.3", "max_version": "1.2"}, "no version of TLS is left"),
        ({"groups": "x25518"}, "x25518"),
        ({"ciphers": "FOO"}, "FOO"),
        ({"signature_algorithms": "foo"}, "foo"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_that_cannot_work(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(Exception, match=r".") as caught:
        ClientContext(**{"default_paths": False, **wrong})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError) or type(caught.value).__module__.startswith("engine_shim")


def test_a_key_of_another_certificate(house: House) -> None:
    with pytest.raises(KeyMismatchError):
        ClientContext(certificate=house.good.cert, key=house.other.key, default_paths=False)


def test_there_is_no_such_option() -> None:
    with pytest.raises(TypeError):
        ClientContext(num_tickets=3)  # type: ignore[call-arg] # of servers


@both_versions
def test_what_is_negotiated(certificates: Certificates, version: str) -> None:
    identity = certificates["rsa2048"]  # in TLS 1.2 the groups are those of certificates, too
    server = pythons(identity)
    server.set_alpn_protocols(["http/1.1", "h2"])
    options: dict[str, Any] = {
        "min_version": version,
        "max_version": version,
        "alpn": ("h2", "http/1.1"),
        "groups": "P-384",
    }
    with shaken(server, trusting(identity, **options)) as (_, client):
        info = client.info()
        assert (info.version, info.alpn) == (f"TLSv{version}", "http/1.1")
        assert info.group in {"secp384r1", "P-384"}


def test_the_secrets_go_to_a_file_where_that_is_asked_for(identity: Identity, tmp_path: Path) -> None:
    log = tmp_path / "keys.log"
    assert works(pythons(identity, "1.3"), trusting(identity, key_log=log))
    assert "CLIENT_TRAFFIC_SECRET_0" in log.read_text()


def test_no_secret_is_shown(identity: Identity, house: House) -> None:
    client = trusting(identity, certificate=house.good.cert, key=house.good.key, password="open sesame")  # noqa: S106 - as if
    assert "sesame" not in repr(client)
    assert repr(ClientContext(verify=False)) == "<ClientContext engine=off verifies nothing>"
    assert not ClientContext(verify=False).check_hostname


def test_the_security_level_is_not_below_that_of_pythons_ssl(tmp_path: Path) -> None:
    """Most builds of Python's ssl set the level themselves; many an OpenSSL has 1, which lets RSA-1024 in."""
    lax = tmp_path / "openssl.cnf"
    lax.write_text("openssl_conf=a\n[a]\nssl_conf=b\n[b]\nsystem_default=c\n[c]\nCipherString=DEFAULT:@SECLEVEL=0\n")
    code = (
        "import ssl\n"
        "from engine_shim.context_facts import security_level\n"
        "from tlsserver import ClientContext\n"
        "print(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).security_level)\n"
        "for ciphers in (None, 'ECDHE', 'ECDHE:@SECLEVEL=1', 'ECDHE:@SECLEVEL=3'):\n"
        "    print(security_level(ClientContext(ciphers=ciphers, default_paths=False).pyopenssl))\n"
    )
    asked = [sys.executable, "-c", code]
    told = subprocess.run(asked, env={**os.environ, "OPENSSL_CONF": str(lax)}, check=True, capture_output=True)
    pythons, *ours = (int(level) for level in told.stdout.split())
    assert ours == [pythons, pythons, 1, 3]
