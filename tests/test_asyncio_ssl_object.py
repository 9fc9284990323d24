"""`tlsserver.asyncio.SSLObject` says what Python's own `ssl.SSLObject` says of the same handshake."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from engine_shim import facts
from support.asyncio_contexts import client_of, der, put, server_of
from support.ends import OurEnd, shaken
from tlsserver import ClientCertificate, ClientContext
from tlsserver.asyncio import create_connection, create_server, ssl_object
from tlsserver.asyncio.context import SSLContext
from tlsserver.asyncio.plain import NotSupportedError
from tlsserver.asyncio.ssl_object import SSLObject

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.certificates import Certificates, Identity
    from support.client_scene import House

pytestmark = pytest.mark.usefixtures("no_ops_left")

both_versions = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])

# Of newer releases of Python than this one may be.
NEWER = {"get_verified_chain", "get_unverified_chain"}


def of(end: OurEnd, context: Any, *, server_side: bool, name: str | None = None) -> SSLObject:
    chain = end.tls.peer_chain()
    return SSLObject(context, end.tls, end.info(), chain, server_side=server_side, server_hostname=name)


def test_every_name_is_our_own() -> None:
    """`_create` makes one of a context, which refuses."""
    names = {name for name in dir(ssl.SSLObject) if not name.startswith("_")} | NEWER
    assert names <= vars(SSLObject).keys()


@pytest.fixture
def python(identity: Identity, house: House) -> dict[str, ssl.SSLContext]:
    """Python's own server, which asks for certificates, and its client, which has one."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=identity.ca)
    server.load_cert_chain(identity.cert, identity.key)
    server.load_verify_locations(house.root.cert)
    server.verify_mode = ssl.CERT_OPTIONAL
    client.load_cert_chain(house.below.cert, house.below.key)
    for one in (server, client):
        one.set_alpn_protocols(["h2"])
    return {"server": server, "client": client}


@both_versions
@pytest.mark.parametrize("with_certificate", [True, False], ids=["with certificate", "without"])
def test_as_server(
    identity: Identity, house: House, python: dict[str, ssl.SSLContext], version: ssl.TLSVersion, with_certificate: bool
) -> None:
    """Ours and Python's server are compared by the same client; what both have to agree upon is compared as well."""
    server = server_of(identity, alpn=("h2",))
    server.load_verify_locations(house.root.cert)
    server.verify_mode = ssl.CERT_OPTIONAL
    client = python["client"] if with_certificate else ssl.create_default_context(cafile=identity.ca)
    client.set_alpn_protocols(["h2"])
    client.maximum_version = client.minimum_version = version
    with shaken(server, client) as (near, far), shaken(python["server"], client) as (theirs, _):
        assert near.done, near.error
        ours = of(near, server, server_side=True)
        assert ours.cipher() == far.tls.cipher()
        assert ours.version() == far.tls.version()
        assert ours.selected_alpn_protocol() == "h2"
        assert ours.getpeercert() == theirs.tls.getpeercert()
        assert ours.getpeercert(binary_form=True) == theirs.tls.getpeercert(binary_form=True)
        assert bool(ours.getpeercert()) is with_certificate
        assert ours.get_channel_binding() == far.tls.get_channel_binding()
        assert ours.shared_ciphers()
        assert set(ours.shared_ciphers() or ()) <= _named(client)
        assert [type(one) for one in ours.shared_ciphers() or ()] == [tuple] * len(ours.shared_ciphers() or ())
        assert ours.server_side
        assert ours.server_hostname is None
        assert not ours.session_reused
        assert ours.get_verified_chain()[1:] == (
            [house.middle.x509.public_bytes(serialization.Encoding.DER), _root(house)] if with_certificate else []
        )
        assert ours.get_unverified_chain() == (
            [house.below.der, house.middle.x509.public_bytes(serialization.Encoding.DER)] if with_certificate else []
        )


def _root(house: House) -> bytes:
    return house.root.x509.public_bytes(serialization.Encoding.DER)


def _named(context: ssl.SSLContext) -> set[tuple[str, str, int]]:
    return {(one["name"], one["protocol"], one["strength_bits"]) for one in context.get_ciphers()}


@both_versions
def test_as_client(identity: Identity, python: dict[str, ssl.SSLContext], version: ssl.TLSVersion) -> None:
    """The same server, Python's, has both for clients."""
    client, server = client_of(identity, alpn=("h2",)), python["server"]
    for one in (client, server, python["client"]):
        one.maximum_version = one.minimum_version = version
    with shaken(server, client) as (near, far):
        ours = of(far, client, server_side=False, name="localhost")
        assert ours.get_channel_binding() == near.tls.get_channel_binding()
        assert ours.get_unverified_chain() == [der(identity)]
        assert ours.get_verified_chain() == [der(identity), ssl.PEM_cert_to_DER_cert(identity.ca.read_text())]
        assert ours.shared_ciphers() is None
        assert ours.server_hostname == "localhost"
        with shaken(server, python["client"]) as (_, theirs):
            assert ours.getpeercert() == theirs.tls.getpeercert()
            for name in ("version", "compression", "selected_alpn_protocol"):
                assert getattr(ours, name)() == getattr(theirs.tls, name)(), name
            assert getattr(ours, "selected_npn_protocol")() is None  # noqa: B009 - mypy knows that it never is anything else


@both_versions
def test_a_client_that_verifies_nothing_learns_nothing(identity: Identity, version: ssl.TLSVersion) -> None:
    """Python's getpeercert() is an empty dict then, and the DER is there."""
    server, client = server_of(identity), client_of(identity)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    client.maximum_version = version
    given = ClientContext(verify=False)
    for context in (client, given):
        with shaken(server, context) as (_, far):
            ours = of(far, context, server_side=False)
            assert ours.getpeercert() == {}
            assert ours.getpeercert(binary_form=True) == der(identity)


def test_it_is_one_of_pythons_by_its_type_and_is_of_its_context(identity: Identity) -> None:
    server, client = server_of(identity), client_of(identity)
    with shaken(server, client) as (near, _):
        ours = of(near, server, server_side=True)
        assert isinstance(ours, ssl.SSLObject)
        assert ours.context is server
        assert ours.session is None
        assert ours.pending() == 0
        assert repr(ours).startswith("<tlsserver.asyncio.SSLObject server TLSv1.")


REFUSED: dict[str, Callable[[SSLObject], object]] = {
    "read": lambda ours: ours.read(7),
    "write": lambda ours: ours.write(b"x"),
    "do_handshake": lambda ours: ours.do_handshake(),
    "unwrap": lambda ours: ours.unwrap(),
    "verify_client_post_handshake": lambda ours: ours.verify_client_post_handshake(),
    "context": lambda ours: put(ours, "context", None),
    "session": lambda ours: put(ours, "session", None),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str, identity: Identity) -> None:
    server, client = server_of(identity), client_of(identity)
    with shaken(server, client) as (near, far):
        with pytest.raises(NotSupportedError, match=rf"^{name}: "):
            REFUSED[name](of(near, server, server_side=True))
        near.send(b"as before")
        assert far.receive() == b"as before"


def test_other_bindings_are_unknown_as_to_python(identity: Identity) -> None:
    server, client = server_of(identity), client_of(identity)
    with shaken(server, client) as (near, _), pytest.raises(ValueError, match="tls-exporter channel binding type"):
        of(near, server, server_side=True).get_channel_binding("tls-exporter")


@both_versions
def test_the_binding_of_a_resumption(identity: Identity, version: ssl.TLSVersion) -> None:
    server, plain = server_of(identity), ssl.create_default_context(cafile=identity.ca)
    plain.maximum_version = version
    session = None
    for reused in (False, True):
        with shaken(server, plain, session=session) as (near, far):
            ours = of(near, server, server_side=True)
            assert ours.session_reused is far.tls.session_reused is reused
            assert ours.get_channel_binding() == far.tls.get_channel_binding()
            near.send(b"x")
            assert far.receive() == b"x"
            session = far.tls.session


@pytest.mark.parametrize("asked_before", [True, False], ids=["asked before", "not asked before"])
def test_after_the_end(identity: Identity, asked_before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked for is remembered, and the rest is None; nothing touches what is freed."""
    monkeypatch.setattr(ssl_object, "_SUITES", {})
    server, client = server_of(identity), client_of(identity)
    with shaken(server, client) as (near, far):
        ends = of(near, server, server_side=True), of(far, client, server_side=False)
        names = ("cipher", "shared_ciphers", "get_channel_binding", "get_unverified_chain")
        before = [getattr(end, name)() for end in ends for name in names] if asked_before else None
    after = [getattr(end, name)() for end in ends for name in names]
    assert after == (before or [None, None, None, [], None, None, None, [der(identity)]])
    for end in ends:
        assert end.version() == "TLSv1.3"
        assert end.pending() == 0
    assert ends[1].getpeercert(binary_form=True) == der(identity)
    assert facts.finished(near.tls, peers=True) == b""


def test_pending_is_what_openssl_has_decrypted(identity: Identity) -> None:
    server, client = server_of(identity), client_of(identity)
    with shaken(server, client) as (near, far):
        far.send(b"four and more")
        buffer = bytearray(4)
        near.step()
        while near.tls.read_into(buffer).name != "DONE":
            pass
        assert of(near, server, server_side=True).pending() == len(b" and more")


# getpeercert() is told from the certificate alone: one with everything in it.

NAMES = {name: oid for name, oid in vars(NameOID).items() if isinstance(oid, x509.ObjectIdentifier)}
# Newer than the OpenSSL of some releases of Python, or of another form than text.
NOT_COMPARED = {"UNSIGNED", "X500_UNIQUE_IDENTIFIER", "ORGANIZATION_IDENTIFIER"}


def with_everything() -> x509.Certificate:
    text = {name: "XX" if "COUNTRY" in name else f"v{name.lower().replace('_', '')}" for name in NAMES}
    parts = [[x509.NameAttribute(NAMES[name], text[name])] for name in sorted(NAMES.keys() - NOT_COMPARED)]
    parts.append([x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"), x509.NameAttribute(NameOID.LOCALITY_NAME, "Köln")])
    parts.append([x509.NameAttribute(x509.ObjectIdentifier("1.2.3.4.5"), "odd")])
    uri = x509.UniformResourceIdentifier
    names: list[x509.GeneralName] = [
        *(x509.DNSName("a.example"), x509.DNSName("*.b.example"), uri("http://x/y"), x509.RFC822Name("a@b.c")),
        *(x509.IPAddress(ipaddress.ip_address(one)) for one in ("192.0.2.7", "2001:db8::a1", "::1")),
        x509.DirectoryName(x509.Name([one[0] for one in parts[:2]])),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4")),
        x509.RegisteredID(NameOID.COMMON_NAME),
        x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"),
    ]
    about = AuthorityInformationAccessOID
    access = [
        x509.AccessDescription(kind, uri(f"http://{number}.example"))
        for number, kind in enumerate((about.OCSP, about.CA_ISSUERS, about.OCSP))
    ]
    points = [[uri("http://crl/1"), uri("ldap://crl/2")], [uri("http://crl/3")]]
    now = dt.datetime(2020, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc)
    key = ec.generate_private_key(ec.SECP256R1())
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.RelativeDistinguishedName(part) for part in parts]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")]))
        .public_key(key.public_key())
        .serial_number(0x0ABC)
        .not_valid_before(now)
        .not_valid_after(now.replace(year=2049, month=12, day=31))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityInformationAccess(access), critical=False)
        .add_extension(
            x509.CRLDistributionPoints([x509.DistributionPoint(one, None, None, None) for one in points]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )


def test_a_certificate_with_everything(tmp_path: Path) -> None:
    made = with_everything()
    file = tmp_path / "made.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    theirs = ssl._ssl._test_decode_cert(str(file))  # type: ignore[attr-defined] # what getpeercert() calls
    ours = ClientCertificate((made.public_bytes(serialization.Encoding.DER),)).peercert()
    assert ours == theirs
    assert list(ours) == list(theirs)


@pytest.mark.parametrize("kind", ["rsa2048", "p256", "ed25519"])
def test_certificates_of_all_kinds(certificates: Certificates, kind: str) -> None:
    identity = certificates[kind]
    theirs = ssl._ssl._test_decode_cert(str(identity.cert))  # type: ignore[attr-defined] # as above
    assert ClientCertificate((der(identity),)).peercert() == theirs


def test_what_was_not_verified_stays_so_when_the_context_changes(identity: Identity) -> None:
    async def connect() -> object:
        loop = asyncio.get_running_loop()
        server = await create_server(loop, asyncio.Protocol, "127.0.0.1", 0, ssl=server_of(identity))
        port = server.sockets[0].getsockname()[1]
        far = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        far.check_hostname = False
        far.verify_mode = ssl.CERT_NONE
        transport, _ = await create_connection(loop, asyncio.Protocol, "127.0.0.1", port, ssl=far)
        far.load_verify_locations(identity.ca)
        far.verify_mode = ssl.CERT_REQUIRED
        told = transport.get_extra_info("peercert")
        transport.abort()
        server.close()
        await server.wait_closed()
        return told

    assert asyncio.run(connect()) == {}
