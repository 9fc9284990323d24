"""TLS for asyncio in which no handshake ever blocks the loop.

The functions have the names and arguments of asyncio's own, with the loop first where asyncio has a method of the loop.
``ssl=`` takes a `SSLContext` of this module, a `tlsserver.TLSContext` (servers) or a `tlsserver.ClientContext`.
`patch_loop`, `loop_factory` and `new_event_loop` give loops whose own methods take them, too, so that frameworks need
not know of us.
"""

from __future__ import annotations

from tlsserver.asyncio.client import create_connection, create_unix_connection
from tlsserver.asyncio.context import SSLContext, create_default_context
from tlsserver.asyncio.listen import create_server, create_unix_server
from tlsserver.asyncio.loops import loop_factory, new_event_loop, patch_loop
from tlsserver.asyncio.server import Server
from tlsserver.asyncio.ssl_object import SSLObject
from tlsserver.asyncio.streams import open_connection, open_unix_connection, start_server, start_unix_server
from tlsserver.asyncio.transport import Transport
from tlsserver.asyncio.upgrade import connect_accepted_socket, start_tls

__all__ = [
    "SSLContext",
    "SSLObject",
    "Server",
    "Transport",
    "connect_accepted_socket",
    "create_connection",
    "create_default_context",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "loop_factory",
    "new_event_loop",
    "open_connection",
    "open_unix_connection",
    "patch_loop",
    "start_server",
    "start_tls",
    "start_unix_server",
]
