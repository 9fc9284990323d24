"""Where an application is served: a port, a Unix socket, or a socket that was inherited."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from tlsserver.cli import params
from tlsserver.errors import AddressError
from tlsserver.listener import bind
from tlsserver.signers.keyserver_local import LocalSocket

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Listening", "listen"]

_EVERYBODY = 0o666  # as uvicorn has it: behind the socket is TLS, as behind a port


class Listening:
    """A socket that is listened on.

    Attributes:
        socket: Non-blocking; whoever serves closes it.
        where: In words, such as a URL.
        remove: Removes what is left in the file system.
    """

    def __init__(self, sock: socket.socket, where: str, remove: Callable[[], object] = lambda: None) -> None:
        self.socket, self.where, self.remove = sock, where, remove


def listen(options: dict[str, Any]) -> Listening:
    """Listen where the options say.

    Raises:
        AddressError: It is not possible.
    """
    if options["uds"] is not None:
        return _unix(options["uds"])
    if options["fd"] is not None:
        return _inherited(options["fd"], options["backlog"])
    found = bind(options["host"], options["port"], options["backlog"])
    return Listening(found, params.url(*found.getsockname()[:2]))


def _unix(path: Path) -> Listening:
    local = LocalSocket(path, mode=_EVERYBODY)
    return Listening(local.socket, f"unix:{path}", local.remove)


def _inherited(number: int, backlog: int) -> Listening:
    where = f"cannot listen on descriptor {number}"
    try:
        found = socket.socket(fileno=number)
    except (OSError, ValueError, OverflowError):  # closed, no socket, or a number that no descriptor has
        raise AddressError(f"{where}: it is no open socket: give the number of one that was inherited") from None
    try:
        found.listen(backlog)
    except OSError as error:
        found.detach()
        raise AddressError(f"{where}: {error.strerror}: give a bound stream socket") from None
    found.setblocking(False)
    found.set_inheritable(False)
    name = found.getsockname()
    return Listening(found, params.url(*name[:2]) if isinstance(name, tuple) else f"unix:{name}")
