"""A Context with key pairs made ahead is set up like any other one; and where there is none, it is said why."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import click
import pytest
from OpenSSL import SSL

from engine_shim import Status, key_exchange
from engine_shim.native import lib
from support import apart
from support.ahead import address, ahead_context, used, with_identity
from support.groups import openssl_function
from support.pair import Pair
from tlsserver.testing import ScriptedProvider

if TYPE_CHECKING:
    from pathlib import Path

    from support.certificates import Identity

pytestmark = pytest.mark.skipif(
    key_exchange.why_unavailable() is not None, reason=f"no key pairs made ahead: {key_exchange.why_unavailable()}"
)

# SSL_CTX_ctrl's numbers (ssl.h).
READINGS = {
    "mode": 33,
    "least version": 130,
    "greatest version": 131,
    "session cache": 45,
    "cache size": 43,
    "read ahead": 40,
}


def settings(context: SSL.Context) -> dict[str, Any]:
    """What pyOpenSSL, OpenSSL and its configuration have set up in a fresh Context."""
    control = openssl_function(
        "SSL_CTX_ctrl", ctypes.c_long, ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p
    )
    found: dict[str, Any] = {name: control(address(context), code, 0, None) for name, code in READINGS.items()}
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
    click.echo(f"{one['least version']} {one['ciphers'][0]}")


def test_configuration_counts(tmp_path: Path) -> None:
    """What openssl.cnf says of every SSL_CTX holds for ours."""
    path = tmp_path / "openssl.cnf"
    path.write_text(CONFIGURATION)
    printed = apart.run(compare_settings, variables={"OPENSSL_CONF": str(path)})
    assert printed.split() == [str(SSL.TLS1_3_VERSION), "TLS_CHACHA20_POLY1305_SHA256"]


def test_client_side(identity: Identity) -> None:
    """A client's Context can have it, too: its share is made ahead."""
    near = with_identity(SSL.Context(SSL.TLS_SERVER_METHOD), identity)
    far = ahead_context(SSL.TLS_CLIENT_METHOD)
    far.load_verify_locations(str(identity.ca))
    far.set_verify(SSL.VERIFY_PEER, None)
    before = used()
    with Pair(near, far, offloaded=False) as pair:
        assert pair.finish() is Status.DONE
    assert used() > before


def set_query() -> None:
    assert key_exchange.why_unavailable() is None
    assert lib.openssl_provider_set_query(b"fips=yes") == lib.SHIM_OK
    click.echo(key_exchange.why_unavailable())
    assert key_exchange.maybe_context(SSL.TLS_SERVER_METHOD) is None


def test_default_query_is_heeded() -> None:
    assert "default property query" in apart.run(set_query)


def load_another() -> None:
    with ScriptedProvider() as made, made.engine.prefer():
        click.echo(key_exchange.why_unavailable())
        assert key_exchange.maybe_context(SSL.TLS_SERVER_METHOD) is None


def test_another_provider_is_heeded() -> None:
    assert "a provider beside OpenSSL's own" in apart.run(load_another)
