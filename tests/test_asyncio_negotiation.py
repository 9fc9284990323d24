"""What `tlsserver.asyncio.SSLContext` negotiates is what was asked for, as server and as client."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest

from support.asyncio_contexts import SERVER, client_of, put, server_of
from support.ends import shaken, works
from tlsserver import ClientContext, ConfigurationError, TLSContext
from tlsserver.asyncio.context import SSLContext

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.certificates import Identity

pytestmark = pytest.mark.usefixtures("no_ops_left")

context = pytest.fixture(server_of)
client = pytest.fixture(client_of)


NEGOTIATED: dict[str, tuple[Callable[[Any], object], str, str]] = {
    "1.2": (lambda c: put(c, "maximum_version", ssl.TLSVersion.TLSv1_2), "version", "TLSv1.2"),
    "no 1.3": (lambda c: put(c, "options", c.options | ssl.OP_NO_TLSv1_3), "version", "TLSv1.2"),
    "no 1.2": (lambda c: put(c, "options", c.options | ssl.OP_NO_TLSv1_2), "version", "TLSv1.3"),
    "suites": (lambda c: c.set_ciphersuites("TLS_CHACHA20_POLY1305_SHA256"), "cipher", "TLS_CHACHA20_POLY1305_SHA256"),
    "ciphers": (
        lambda c: (
            put(c, "maximum_version", ssl.TLSVersion.TLSv1_2),
            c.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384"),
        ),
        "cipher",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
    ),
    "alpn": (lambda c: c.set_alpn_protocols(["http/1.1"]), "alpn", "http/1.1"),
}


@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize("name", NEGOTIATED)
def test_what_is_asked_for_is_negotiated(name: str, side: str, context: SSLContext, client: SSLContext) -> None:
    """Asked for by the one, and by the other not; where the one was in use before."""
    deed, fact, expected = NEGOTIATED[name]
    for one in (context, client):
        one.set_alpn_protocols(["h2", "http/1.1"])
    assert works(context, client)
    deed(context if side == "server" else client)
    with shaken(context, client) as (near, far):
        assert near.done, (near.error, far.error)
        assert getattr(near.info(), fact) == getattr(far.info(), fact) == expected


def test_groups(context: SSLContext, client: SSLContext) -> None:
    for choose, name in ((context.set_groups, "P-384:P-256"), (context.set_ecdh_curve, "secp384r1")):
        choose(name)
        with shaken(context, client) as (near, _):
            assert near.info().group in {"secp384r1", "P-384"}
    assert "X25519" in context.get_groups()
    assert context.get_groups(include_aliases=True)


def test_ciphers_are_described_as_pythons_does() -> None:
    context, plain = SSLContext(), ssl.SSLContext(SERVER)
    for one in (context, plain):
        one.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384")
    ours = {one["name"]: one for one in context.get_ciphers()}
    theirs = {one["name"]: one for one in plain.get_ciphers()}
    assert ours == theirs


def test_tickets_are_counted(context: SSLContext) -> None:
    for count, option in ((0, 0), (3, 0), (3, ssl.OP_NO_TICKET)):
        context.num_tickets = count
        context.options |= option
        assert context._asked.servers()["num_tickets"] == (0 if option else count)
        context.server_context()
    with pytest.raises(ConfigurationError, match="number of tickets"):
        context.num_tickets = 33


def test_no_ticket_is_given_to_who_asks_for_none(identity: Identity) -> None:
    """In TLS 1.2 as well, where it is an option of OpenSSL's."""
    server = SSLContext()
    server.load_cert_chain(identity.cert, identity.key)
    server.options |= ssl.OP_NO_TICKET
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        far = ssl.create_default_context(cafile=identity.ca)
        far.maximum_version = version
        with shaken(server, far) as (near, client):
            near.send(b"x")
            assert client.receive() == b"x"
            assert not (client.tls.session and client.tls.session.has_ticket)


def test_the_key_log(context: SSLContext, client: SSLContext, tmp_path: Path) -> None:
    log = tmp_path / "keys.log"
    with pytest.raises(ssl.SSLError, match="key log"):
        context.keylog_filename = str(tmp_path / "nowhere" / "keys.log")
    assert context.keylog_filename is None
    context.keylog_filename = str(log)
    assert context.keylog_filename == str(log)
    assert works(context, client)
    assert "SERVER_TRAFFIC_SECRET_0" in log.read_text()


def test_session_stats_count(context: SSLContext, client: SSLContext) -> None:
    assert works(context, client)
    assert context.session_stats().keys() == ssl.SSLContext(SERVER).session_stats().keys()
    assert context.session_stats()["accept_good"] == 1
    assert client.session_stats()["connect_good"] == 1


def test_options_that_the_standard_library_lacks(identity: Identity, client: SSLContext) -> None:
    server = SSLContext(profile="modern", groups="P-256", min_version="1.3", max_version="1.3", alpn=("h2",))
    server.load_cert_chain(identity.cert, identity.key)
    assert server.minimum_version == server.maximum_version == ssl.TLSVersion.TLSv1_3
    assert SSLContext(profile="modern").minimum_version == ssl.TLSVersion.TLSv1_3
    assert works(server, client)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert not works(server, client)
    with pytest.raises(ConfigurationError, match=r"TLS version '1\.0' is not known"):
        SSLContext(min_version="1.0")


def test_versions_by_their_ends() -> None:
    context = SSLContext()
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    context.minimum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
    context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    assert (context.minimum_version, context.maximum_version) == (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2)


@pytest.mark.parametrize("names", [[b"h2"], b"h2", [7], ["\u01272"], [""]])
def test_protocols_that_python_refuses(names: Any) -> None:
    with pytest.raises(Exception) as theirs:  # noqa: PT011 - whatever it is
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_alpn_protocols(names)
    with pytest.raises((theirs.type, ssl.SSLError)):
        SSLContext().set_alpn_protocols(names)
    if theirs.type is TypeError:
        with pytest.raises(TypeError):
            SSLContext().set_alpn_protocols(names)


def test_ciphers_of_a_given_context(identity: Identity) -> None:
    only = "ECDHE-RSA-AES256-GCM-SHA384:@SECLEVEL=3"
    for given in (TLSContext(identity.cert, identity.key, ciphers=only), ClientContext(ciphers=only)):
        context = SSLContext.from_context(given)
        assert [one["name"] for one in context.get_ciphers() if not one["name"].startswith("TLS_")] == [only[:27]]
        assert context.security_level == 3
