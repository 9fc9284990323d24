"""Contexts of `tlsserver.asyncio` that fit each other."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from tlsserver.asyncio.context import SSLContext

if TYPE_CHECKING:
    from support.certificates import Identity

SERVER, CLIENT = ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT


def server_of(identity: Identity, **options: Any) -> SSLContext:
    """Make a server's with its certificate."""
    made = SSLContext(SERVER, **options)
    made.load_cert_chain(identity.cert, identity.key)
    return made


def client_of(identity: Identity, **options: Any) -> SSLContext:
    """Make a client's that trusts its authority."""
    made = SSLContext(CLIENT, **options)
    made.load_verify_locations(identity.ca)
    return made


def put(context: Any, name: str, value: object) -> str:
    """Set an attribute, in an expression."""
    setattr(context, name, value)
    return name


def der(identity: Identity) -> bytes:
    return ssl.PEM_cert_to_DER_cert(identity.cert.read_text())
