"""`tlsserver.asyncio.SSLContext`: every name of `ssl.SSLContext`, beside the standard library's own answer."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest

import tlsserver.asyncio.context as context_module
from engine_shim import ManualEngine
from support.asyncio_contexts import CLIENT, SERVER, client_of, der, put, server_of
from support.ends import shaken, works
from tlsserver import ClientCertificates, ClientContext, ConfigurationError, TLSContext, TLSServerError
from tlsserver.asyncio.context import SSLContext, create_default_context
from tlsserver.asyncio.plain import NotSupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.certificates import Certificates, Identity
    from support.client_scene import House

pytestmark = pytest.mark.usefixtures("no_ops_left")

context = pytest.fixture(server_of)
client = pytest.fixture(client_of)


# Names of ssl.SSLContext that are not our own, and why that is right.
INHERITED = {
    "protocol": "it is what the constructor was given, in the C part as well",
    "sslsocket_class": "its SSLSocket calls _wrap_socket, which refuses",
    "sslobject_class": "its SSLObject calls _wrap_bio, which refuses",
    "_encode_hostname": "a function without a state",
    "_load_windows_store_certs": "of Windows",
    "_windows_cert_stores": "of Windows",
}
# Of newer releases of Python than this one may be; those that this one lacks are looked for as well.
NEWER = {
    *("set_ciphersuites", "set_groups", "get_groups", "set_client_sigalgs", "set_server_sigalgs"),
    *("set_psk_client_callback", "set_psk_server_callback", "security_level", "_msg_callback"),
}


def own(name: str) -> bool:
    """Tell whether a name is defined by one of our classes, and not by the standard library's."""
    return any(name in vars(kind) for kind in SSLContext.__mro__ if kind.__module__.startswith("tlsserver."))


def test_every_name_is_ours_or_has_its_reason() -> None:
    names = {name for name in dir(ssl.SSLContext) if not name.startswith("__")} | NEWER
    assert {name for name in names if not own(name)} - INHERITED.keys() == set()
    assert {name for name in INHERITED if own(name)} == set()


def test_it_is_a_context_of_pythons_by_its_type() -> None:
    """uvicorn and uvloop insist on it; frameworks ask whether there is one."""
    assert isinstance(SSLContext(), ssl.SSLContext)
    assert SSLContext()


# Beside the standard library: the same is done to both, and what both say is compared.

ALIKE: dict[str, Callable[[Any], object]] = {
    "protocol": lambda c: c.protocol,
    "verify_mode": lambda c: c.verify_mode,
    "verify_mode is a number": lambda c: (
        put(c, "check_hostname", False),
        put(c, "verify_mode", 1),
        c.verify_mode,
    ),
    "none while names are checked": lambda c: (
        put(c, "check_hostname", True),
        put(c, "verify_mode", ssl.CERT_NONE),
    ),
    "checking names verifies": lambda c: (
        put(c, "check_hostname", False),
        put(c, "verify_mode", ssl.CERT_NONE),
        put(c, "check_hostname", True),
        c.verify_mode,
    ),
    "no verify_mode": lambda c: put(c, "verify_mode", 7),
    "verify_mode of another type": lambda c: put(c, "verify_mode", "required"),
    "check_hostname": lambda c: c.check_hostname,
    "check_hostname is true or false": lambda c: (put(c, "check_hostname", 1), c.check_hostname),
    "verify_flags": lambda c: c.verify_flags,
    "more verify_flags": lambda c: (
        put(c, "verify_flags", c.verify_flags | ssl.VERIFY_X509_STRICT),
        c.verify_flags,
    ),
    "common name": lambda c: c.hostname_checks_common_name,
    "no common name": lambda c: (put(c, "hostname_checks_common_name", False), c.hostname_checks_common_name),
    "host flags": lambda c: (c._host_flags, put(c, "hostname_checks_common_name", False), c._host_flags),
    "minimum 1.3": lambda c: (put(c, "minimum_version", ssl.TLSVersion.TLSv1_3), c.minimum_version),
    "minimum is a number": lambda c: (put(c, "minimum_version", 0x304), c.minimum_version),
    "minimum of no version": lambda c: put(c, "minimum_version", 5),
    "maximum_version": lambda c: c.maximum_version,
    "maximum 1.2": lambda c: (put(c, "maximum_version", ssl.TLSVersion.TLSv1_2), c.maximum_version),
    "options": lambda c: c.options,
    "options with a ticket less": lambda c: (put(c, "options", c.options | ssl.OP_NO_TICKET), c.options),
    "options cleared": lambda c: (put(c, "options", c.options & ~ssl.OP_CIPHER_SERVER_PREFERENCE), c.options),
    "num_tickets": lambda c: c.num_tickets,
    "num_tickets negative": lambda c: put(c, "num_tickets", -1),
    "num_tickets of another type": lambda c: put(c, "num_tickets", "2"),
    "post_handshake_auth": lambda c: (c.post_handshake_auth, put(c, "post_handshake_auth", False)),
    "sni_callback": lambda c: c.sni_callback,
    "keylog_filename": lambda c: (c.keylog_filename, put(c, "keylog_filename", None)),
    "security_level": lambda c: c.security_level,
    "security_level cannot be set": lambda c: put(c, "security_level", 1),
    "session_stats": lambda c: c.session_stats(),
    "cert_store_stats": lambda c: c.cert_store_stats(),
    "get_ca_certs": lambda c: c.get_ca_certs(),
    "alpn": lambda c: c.set_alpn_protocols(["h2", "http/1.1"]),
    "alpn, none": lambda c: c.set_alpn_protocols([]),
    "alpn, empty": lambda c: c.set_alpn_protocols(["h2", ""]),
    "alpn, too long": lambda c: c.set_alpn_protocols(["x" * 256]),
    "ciphers": lambda c: c.set_ciphers("ECDHE+AESGCM:!aNULL"),
    "ciphers, none left": lambda c: c.set_ciphers("nothing"),
    "curve": lambda c: c.set_ecdh_curve("prime256v1"),
    "curve, unknown": lambda c: c.set_ecdh_curve("nothing"),
    "no purpose": lambda c: c.load_default_certs("server"),
    "nothing to trust": lambda c: c.load_verify_locations(),
    "no authorities' file": lambda c: c.load_verify_locations("nowhere.pem"),
    "no authorities' data": lambda c: c.load_verify_locations(cadata="nothing"),
    "no authorities in DER": lambda c: c.load_verify_locations(cadata=b"nothing"),
    "no certificate's file": lambda c: c.load_cert_chain("nowhere.pem"),
    "a certificate of another type": lambda c: c.load_cert_chain(7),
    "no attribute": lambda c: c.sni,
    "psk": lambda c: getattr(c, "set_psk_client_callback", lambda _: None)(None),
}


def outcome(deed: Callable[[Any], object], context: ssl.SSLContext) -> object:
    """Return what was said, or the class of the standard library that was raised."""
    try:
        return deed(context)
    except Exception as error:  # noqa: BLE001 - compared
        kinds = (ssl.SSLError, FileNotFoundError, TypeError, ValueError, AttributeError)
        return next(kind for kind in kinds if isinstance(error, kind))


@pytest.mark.parametrize("protocol", [SERVER, CLIENT], ids=["server", "client"])
@pytest.mark.parametrize("name", ALIKE)
def test_as_the_standard_library_says(name: str, protocol: int) -> None:
    ours, theirs = outcome(ALIKE[name], SSLContext(protocol)), outcome(ALIKE[name], ssl.SSLContext(protocol))
    assert ours == theirs
    assert type(ours) is type(theirs)


def test_both_sides(identity: Identity) -> None:
    """PROTOCOL_TLS is deprecated, and still given by some."""
    with pytest.warns(DeprecationWarning, match="deprecated"):
        both = SSLContext(ssl.PROTOCOL_TLS)
    assert (both.verify_mode, both.check_hostname) == (ssl.CERT_NONE, False)
    both.load_cert_chain(identity.cert, identity.key)
    both.load_verify_locations(identity.ca)
    assert works(both, both)


def test_other_protocols_are_refused_by_name() -> None:
    with pytest.raises(NotSupportedError, match=r"PROTOCOL_TLSv1_2.*PROTOCOL_TLS_SERVER"):
        SSLContext(ssl.PROTOCOL_TLSv1_2)


def test_the_other_side_is_refused(context: SSLContext, client: SSLContext) -> None:
    with pytest.raises(ssl.SSLError, match="Cannot create a client socket with a PROTOCOL_TLS_SERVER context"):
        context.client_context()
    with pytest.raises(ssl.SSLError, match="Cannot create a server socket with a PROTOCOL_TLS_CLIENT context"):
        client.server_context()


def test_a_server_needs_a_certificate() -> None:
    with pytest.raises(ssl.SSLError, match=r"^the context has no certificate: call load_cert_chain") as caught:
        SSLContext(SERVER).server_context()
    assert isinstance(caught.value, ConfigurationError)
    assert isinstance(caught.value, TLSServerError)


# Of a context of tlsserver.


def test_from_a_context(identity: Identity, certificates: Certificates) -> None:
    given, wanted = TLSContext(identity.cert, identity.key), ClientContext(ca_certs=identity.ca)
    server, client = SSLContext.from_context(given), SSLContext.from_context(wanted)
    assert server.server_context() is given
    assert client.client_context() is wanted
    assert (server.protocol, client.protocol) == (SERVER, CLIENT)
    assert (server.verify_mode, server.check_hostname) == (ssl.CERT_NONE, False)
    assert (client.verify_mode, client.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert SSLContext.from_context(ClientContext(verify=False)).verify_mode == ssl.CERT_NONE
    assert works(server, client)
    with pytest.raises(NotSupportedError, match="made by from_context"):
        server.set_ciphers("ECDHE+AESGCM")
    with pytest.raises(ssl.SSLError):
        server.client_context()
    with pytest.raises(ssl.SSLError):
        client.server_context()
    with pytest.raises(ConfigurationError, match="made of a ClientContext"):
        client.load_cert_chain(identity.cert, identity.key)
    with pytest.raises(TypeError, match="not SSLContext"):
        SSLContext.from_context(ssl.SSLContext(SERVER))  # type: ignore[arg-type] # what it is about
    other = certificates.issue("from-context", "p256")
    server.load_cert_chain(other.cert, other.key)
    with shaken(server, client) as (_, far):
        assert far.tls.peer_chain()[0] == der(other)


def test_modes_of_a_given_server(identity: Identity, house: House) -> None:
    for mode, expected in (("optional", ssl.CERT_OPTIONAL), ("required", ssl.CERT_REQUIRED)):
        asked = ClientCertificates(mode, house.root.cert)  # type: ignore[arg-type] # one of the two
        given = TLSContext(identity.cert, identity.key, client_certificates=asked)
        assert SSLContext.from_context(given).verify_mode == expected


def test_no_secret_is_shown(identity: Identity) -> None:
    context = SSLContext()
    context.load_cert_chain(identity.cert, identity.encrypted_key(b"secret"), "secret")
    assert "secret" not in repr(context)
    assert "server of 1 cert" in repr(context)
    assert "client" in repr(SSLContext(CLIENT))
    assert "secret" not in repr(vars(context))
    assert "secret" not in repr(vars(SSLContext(ticket_keys="rediss://user:secret@localhost/0")))


def test_the_module_says_what_is_public() -> None:
    assert set(context_module.__all__) == {"SSLContext", "create_default_context"}


def test_a_manual_engine_parks_both(identity: Identity, house: House) -> None:
    with ManualEngine() as manual:
        context = SSLContext(engine=manual)
        context.load_cert_chain(identity.cert, identity.key)
        assert context.server_context().offloaded
        client = SSLContext(CLIENT, engine=manual)
        client.load_cert_chain(house.good.cert, house.good.key)
        client.load_verify_locations(identity.ca)
        assert client.client_context().offloaded


@pytest.mark.parametrize("flags", [0, 0x80020], ids=["until 3.12", "since 3.13"])
def test_the_default_context_is_as_strict_as_pythons(flags: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_module, "_DEFAULT_FLAGS", flags)
    for purpose in (ssl.Purpose.SERVER_AUTH, ssl.Purpose.CLIENT_AUTH):
        made = create_default_context(purpose)
        theirs = ssl.create_default_context(purpose)
        assert made.verify_flags == theirs.verify_flags | flags
        assert (made.verify_mode, made.check_hostname) == (theirs.verify_mode, theirs.check_hostname)


def test_the_flags_of_given_client_certificates_are_their_own(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others would be set, told, and not be looked at."""
    monkeypatch.setattr(context_module, "_DEFAULT_FLAGS", 0x80020)
    asked = ClientCertificates("required", house.root.cert)
    made = create_default_context(ssl.Purpose.CLIENT_AUTH, client_certificates=asked)
    with pytest.raises(ssl.SSLError, match="client_certificates= was given"):
        made.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def test_the_default_flags_are_those_of_this_python() -> None:
    for purpose in (ssl.Purpose.SERVER_AUTH, ssl.Purpose.CLIENT_AUTH):
        assert create_default_context(purpose).verify_flags == ssl.create_default_context(purpose).verify_flags
