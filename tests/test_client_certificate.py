"""A client's certificate reaches the application: the chain, its names, and what Python's ssl would say of it."""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from helpers_server import Echo, House

from engine_shim.questions import split_chain
from support import client_scene
from support.pair import Pair
from tlsserver import ClientCertificate, ClientCertificates, Server, SubjectAltName, TLSContext
from tlsserver.site.visitor import Visitor

if TYPE_CHECKING:
    import asyncio

    from support.certificates import Identity
    from support.client_authority import Holder

SANS = (
    x509.DNSName("alice.example"),
    x509.IPAddress(ipaddress.ip_address("192.0.2.7")),
    x509.UniformResourceIdentifier("spiffe://example/alice"),
    x509.RFC822Name("alice@example.com"),
)
MORE_SANS = (
    x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Alice")])),
    x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4")),
    x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"),
)

both_versions = pytest.mark.parametrize("version", ["1.2", "1.3"])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> client_scene.House:
    return client_scene.House(tmp_path_factory.mktemp("clients"))


@pytest.fixture(scope="module")
def alice(house: client_scene.House) -> Holder:
    return house.middle.issue("alice", sans=SANS)


class Keeper(Echo):
    """Keeps its transport, which answers after the end as well."""

    met: list[Keeper]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.met.append(self)

    def told(self, name: str = "client_certificate") -> Any:
        return self.transport.get_extra_info(name)


class Site(House):
    """A server that asks its clients, which the test turns by hand."""

    def __init__(self, identity: Identity, holder: Holder | None, version: str, **options: Any) -> None:
        keeper = type("Keeper", (Keeper,), {"met": []})
        super().__init__(identity, version=version, factory=keeper)
        self.service.close()
        self.server = Server(TLSContext(identity.cert, identity.key, **options), keeper, port=0)
        self.server.listen()
        assert self.server._service is not None
        self.service = self.server._service
        self.reactor = self.service.reactor
        self.met: list[Keeper] = keeper.met  # type: ignore[attr-defined]
        if holder is not None:
            self.client_context.load_cert_chain(holder.cert, holder.key)


@both_versions
def test_the_verified_chain_reaches_the_application(
    identity: Identity, house: client_scene.House, alice: Holder, version: str
) -> None:
    asked = ClientCertificates(ca_certs=house.root.cert)
    with Site(identity, alice, version, client_certificates=asked) as site:
        client = site.connected()
        found = site.met[0].told()
        assert isinstance(found, ClientCertificate)
        assert [x509.load_der_x509_certificate(der).subject for der in found.chain] == [
            one.x509.subject for one in (alice, house.middle, house.root)
        ]
        assert (found.der, found.subject, found.x509) == (alice.der, "CN=alice", alice.x509)
        assert [san.kind for san in found.sans] == ["DNS", "IP", "URI", "email"]
        assert repr(found) == "<ClientCertificate CN=alice>"
        client.close()
        site.until(site.is_empty)
        assert site.met[0].told() is found


@both_versions
def test_a_resumed_session_has_the_clients_own_alone(
    identity: Identity, house: client_scene.House, alice: Holder, version: str
) -> None:
    context = TLSContext(identity.cert, identity.key, client_certificates=ClientCertificates(ca_certs=house.root.cert))
    far = client_scene.client(identity, alice, version)
    session = client_scene.session_of(context, far)
    with Pair(context.pyopenssl, far) as pair:
        pair.client.set_session(session)
        pair.finish()
        assert pair.server.reused
        assert pair.server.peer_chain() == (alice.der,)
        pair.server.close()
        assert pair.server.peer_chain() == ()


@both_versions
def test_no_certificate(identity: Identity, house: client_scene.House, version: str) -> None:
    for asked in (None, ClientCertificates("optional", house.root.cert)):
        with Site(identity, None, version, client_certificates=asked) as site:
            site.connected()
            assert site.met[0].told() is None
            assert site.met[0].told("peercert") is None


def pythons_own(identity: Identity, house: client_scene.House, holder: Holder) -> dict[str, Any]:
    """Ask Python's ssl, as a server, about a client's certificate."""
    near, far = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    near.load_cert_chain(identity.cert, identity.key)
    near.load_verify_locations(house.root.cert)
    near.verify_mode = ssl.CERT_REQUIRED
    far.load_verify_locations(identity.ca)
    far.load_cert_chain(holder.cert, holder.key)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = near.wrap_bio(there, back, server_side=True), far.wrap_bio(back, there, server_hostname="localhost")
    for end in ends[::-1] * 3:
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return dict(ends[0].getpeercert() or {})


def test_the_dict_is_that_of_pythons_ssl(identity: Identity, house: client_scene.House, alice: Holder) -> None:
    with Site(identity, alice, "1.3", client_certificates=ClientCertificates(ca_certs=house.root.cert)) as site:
        site.connected()
        assert site.met[0].told("peercert") == pythons_own(identity, house, alice)


def test_names_of_every_kind(house: client_scene.House) -> None:
    found = ClientCertificate((house.root.issue("many", sans=(*SANS, *MORE_SANS)).der,))
    assert found.sans[4:] == (
        SubjectAltName("directory", "CN=Alice"),
        SubjectAltName("OID", "1.2.3.4"),
        SubjectAltName("other", "1.2.3:0500"),
    )
    none = ClientCertificate((house.good.der,))
    assert none.sans == ()
    assert "subjectAltName" not in none.peercert()
    assert none != found
    assert len({none, ClientCertificate((house.good.der,))}) == 1


def test_a_chain_is_taken_apart() -> None:
    assert split_chain(b"") == ()
    assert split_chain(b"\0\0\0\2ab\0\0\0\1c") == (b"ab", b"c")


def test_what_the_demo_site_shows(identity: Identity, house: client_scene.House, alice: Holder) -> None:
    with Site(identity, alice, "1.3", client_certificates=ClientCertificates(ca_certs=house.root.cert)) as site:
        site.connected()
        seen = Visitor.of(site.met[0].transport, engine="off", linkage="", openssl="")  # type: ignore[arg-type]
    assert seen.client_subject == "CN=alice"
    assert seen.client_sans[:2] == ("DNS:alice.example", "IP:192.0.2.7")
    assert dict(seen.rows)["Your certificate"].startswith("CN=alice, DNS:alice.example, ")
