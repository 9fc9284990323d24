"""Whom `tlsserver.asyncio.SSLContext` trusts, beside Python's own."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from support.asyncio_contexts import CLIENT, SERVER, client_of, server_of
from support.ends import works
from tlsserver import ClientCertificates, ClientContext, ConfigurationError
from tlsserver.asyncio.context import SSLContext, create_default_context
from tlsserver.asyncio.plain import ContextError

if TYPE_CHECKING:
    from pathlib import Path

    from support.certificates import Identity
    from support.client_scene import House

pytestmark = pytest.mark.usefixtures("no_ops_left")

context = pytest.fixture(server_of)
client = pytest.fixture(client_of)


# What is asked for holds.


@pytest.mark.parametrize("mode", [ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_clients_are_verified_as_pythons_does(
    identity: Identity, house: House, mode: ssl.VerifyMode, version: ssl.TLSVersion
) -> None:
    servers: list[ssl.SSLContext] = [SSLContext(SERVER), ssl.SSLContext(SERVER)]
    for server in servers:
        server.minimum_version = server.maximum_version = version
        server.load_cert_chain(identity.cert, identity.key)
        server.verify_mode = mode
        server.load_verify_locations(house.root.cert)
    for holder in (None, house.good, house.unknown, house.expired, house.below):
        far = create_default_context(cafile=identity.ca)
        if holder is not None:
            far.load_cert_chain(holder.cert, holder.key)
        ours, theirs = (works(server, far) for server in servers)
        assert ours is theirs, holder


def test_authorities_of_clients_in_all_forms(identity: Identity, house: House, tmp_path: Path) -> None:
    pem = house.root.pem.decode()
    (tmp_path / "0123abcd.0").write_text(pem)
    far = create_default_context(cafile=identity.ca)
    far.load_cert_chain(house.good.cert, house.good.key)
    forms: list[dict[str, Any]] = [
        {"cafile": str(house.root.cert)},
        {"cafile": bytes(house.root.cert)},
        {"capath": tmp_path},
        {"cadata": pem},
        {"cadata": ssl.PEM_cert_to_DER_cert(pem)},
        {"cadata": memoryview(ssl.PEM_cert_to_DER_cert(pem))},
    ]
    for form in forms:
        server = SSLContext(SERVER)
        server.load_cert_chain(identity.cert, identity.key)
        server.load_verify_locations(house.stranger.cert)
        server.load_verify_locations(**form)
        server.verify_mode = ssl.CERT_REQUIRED
        assert works(server, far), form


def test_what_was_loaded_is_told_as_pythons_does(house: House) -> None:
    ours, theirs = SSLContext(SERVER), ssl.SSLContext(SERVER)
    for one in (ours, theirs):
        one.load_verify_locations(house.root.cert)
        one.load_verify_locations(house.crl)
    assert ours.cert_store_stats() == theirs.cert_store_stats() == {"x509": 1, "crl": 1, "x509_ca": 1}
    assert ours.get_ca_certs() == theirs.get_ca_certs()
    assert ours.get_ca_certs(binary_form=True) == theirs.get_ca_certs(binary_form=True)


@pytest.mark.parametrize("flag", [ssl.VERIFY_CRL_CHECK_LEAF, ssl.VERIFY_CRL_CHECK_CHAIN])
def test_revocation_lists_as_pythons_does(identity: Identity, house: House, flag: ssl.VerifyFlags) -> None:
    servers: list[ssl.SSLContext] = [SSLContext(SERVER), ssl.SSLContext(SERVER)]
    for server in servers:
        server.load_cert_chain(identity.cert, identity.key)
        server.load_verify_locations(house.root.cert)
        server.load_verify_locations(house.middle.cert)
        server.load_verify_locations(house.crl)
        server.verify_mode = ssl.CERT_REQUIRED
        server.verify_flags |= flag
    for holder, good in ((house.good, True), (house.revoked, False)):
        far = create_default_context(cafile=identity.ca)
        far.load_cert_chain(holder.cert, holder.key)
        assert [works(server, far) for server in servers] == [good, good]


def test_lists_are_not_looked_at_without_a_flag(identity: Identity, house: House) -> None:
    """As with Python's; `tlsserver.ClientCertificates` by itself always looks."""
    server = SSLContext(SERVER)
    server.load_cert_chain(identity.cert, identity.key)
    server.load_verify_locations(house.root.cert)
    server.load_verify_locations(house.crl)
    server.verify_mode = ssl.CERT_REQUIRED
    far = create_default_context(cafile=identity.ca)
    far.load_cert_chain(house.revoked.cert, house.revoked.key)
    assert works(server, far)


def test_requiring_certificates_without_authorities_is_refused(context: SSLContext) -> None:
    """Python's would let nobody in, without a word."""
    context.verify_mode = ssl.CERT_REQUIRED
    with pytest.raises(ssl.SSLError, match="no authority is given"):
        context.server_context()


def test_a_server_checks_no_names(context: SSLContext, identity: Identity) -> None:
    context.load_verify_locations(identity.ca)
    context.check_hostname = True
    with pytest.raises(ssl.SSLError, match="check_hostname is for clients"):
        context.server_context()


def test_client_certificates_say_all_of_it(identity: Identity, house: House) -> None:
    server = SSLContext(client_certificates=ClientCertificates("optional", house.root.cert))
    server.load_cert_chain(identity.cert, identity.key)
    assert server.verify_mode == ssl.CERT_OPTIONAL
    with pytest.raises(ContextError, match="client_certificates= was given"):
        server.verify_mode = ssl.CERT_NONE
    with pytest.raises(ContextError, match="client_certificates= was given"):
        server.load_verify_locations(house.stranger.cert)
    far = create_default_context(cafile=identity.ca)
    far.load_cert_chain(house.good.cert, house.good.key)
    assert works(server, far)


def test_names_are_checked_or_not(context: SSLContext, client: SSLContext) -> None:
    assert not works(context, client, "other.example")
    client.check_hostname = False
    assert works(context, client, "other.example")
    assert works(context, client, None)
    client.verify_mode = ssl.CERT_NONE
    assert works(context, SSLContext(CLIENT)) is False
    assert works(context, client)


def test_default_certificates(identity: Identity, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(identity.ca))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    server = create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(identity.cert, identity.key)
    assert server.verify_mode == ssl.CERT_NONE
    far = create_default_context()
    assert (far.verify_mode, far.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert works(server, far)
    server.set_default_verify_paths()
    server.verify_mode = ssl.CERT_REQUIRED
    assert not works(server, far)
    far.load_cert_chain(identity.cert, identity.key)
    assert works(server, far)


def test_no_default_context_for_other_purposes() -> None:
    with pytest.raises(TypeError, match="purpose is 'server'"):
        create_default_context("server")  # type: ignore[arg-type] # what it is about


def test_of_a_folder_only_what_openssl_would_find_is_trusted(identity: Identity, tmp_path: Path) -> None:
    """Beside the names of `openssl rehash` there may lie what somebody has put aside."""
    (tmp_path / "aside.pem").write_bytes(identity.ca.read_bytes())
    near = server_of(identity)
    for far in (SSLContext(CLIENT), ssl.SSLContext(CLIENT)):
        far.load_verify_locations(capath=tmp_path)
        assert not works(near, far)
    subprocess.run(["openssl", "rehash", tmp_path], check=True)
    for far in (SSLContext(CLIENT), ssl.SSLContext(CLIENT)):
        far.load_verify_locations(capath=tmp_path)
        assert works(near, far)


def test_an_authority_that_must_not_be_trusted_is_not(identity: Identity, tmp_path: Path) -> None:
    """OpenSSL's own form says what for; Python's ssl obeys, and here it is refused."""
    limited = tmp_path / "limited.pem"
    openssl = [
        "openssl",
        "x509",
        "-in",
        str(identity.ca),
        "-addreject",
        "serverAuth",
        "-trustout",
        "-out",
        str(limited),
    ]
    subprocess.run(openssl, check=True)
    python = ssl.SSLContext(CLIENT)
    python.load_verify_locations(limited)
    assert not works(server_of(identity), python)
    shutil.copy(limited, tmp_path / "0123abcd.0")
    both = limited.read_text() + identity.ca.read_text()
    for given in ({"cafile": limited}, {"capath": tmp_path}, {"cadata": both}):
        with pytest.raises(ssl.SSLError, match="trust settings"):
            SSLContext(CLIENT).load_verify_locations(**given)
    with pytest.raises(ConfigurationError, match="trust settings"):
        ClientContext(ca_data=both)


def test_what_failed_to_load_is_not_told_as_loaded(identity: Identity, house: House) -> None:
    given = SSLContext.from_context(ClientContext(ca_certs=identity.ca))
    asking = SSLContext(SERVER, client_certificates=ClientCertificates(ca_certs=house.root.cert))
    in_use = server_of(identity)
    in_use.load_verify_locations(house.root.cert)
    in_use.verify_mode = ssl.CERT_REQUIRED
    in_use.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    in_use.server_context()
    of_stranger = house.stranger.revoke()
    loads: list[tuple[SSLContext, dict[str, Any]]] = [
        (client_of(identity), {"cafile": "nowhere.pem", "cadata": house.root.pem.decode()}),
        (given, {"cafile": house.root.cert}),
        (asking, {"cafile": house.root.cert}),
        (in_use, {"cafile": of_stranger}),
    ]
    for context, load in loads:
        before = context.cert_store_stats(), context.get_ca_certs(True)
        with pytest.raises((OSError, ConfigurationError)):
            context.load_verify_locations(**load)
        assert (context.cert_store_stats(), context.get_ca_certs(True)) == before, load


def test_revocation_lists_for_the_systems_authorities(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(house.root.cert))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    near = SSLContext(SERVER)
    near.load_cert_chain(house.server.cert, house.server.key)
    for crl, good in ((house.crl, True), (house.root.revoke(house.server, file="of-servers.pem"), False)):
        far = create_default_context()
        far.check_hostname = False
        far.load_verify_locations(crl)
        far.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        assert works(near, far, None) is good


@pytest.mark.parametrize("flag", [0, 0x80000], ids=["whole chains", "partial chains"])
def test_an_authority_without_its_issuer_as_pythons_does(flag: int, identity: Identity, house: House) -> None:
    """It is trusted with VERIFY_X509_PARTIAL_CHAIN alone."""
    far = create_default_context(cafile=identity.ca)
    far.load_cert_chain(house.below.cert, house.below.key)
    for server in (SSLContext(SERVER), ssl.SSLContext(SERVER)):
        server.load_cert_chain(identity.cert, identity.key)
        server.load_verify_locations(house.middle.cert)
        server.verify_mode = ssl.CERT_REQUIRED
        server.verify_flags |= flag
        assert works(server, far) is bool(flag)
