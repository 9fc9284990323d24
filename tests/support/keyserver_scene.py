"""A key server on a thread of this process, its keys, and clients."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from engine_shim import BatchEngine
from support.keyless_client import KeylessClient
from tlsserver.signers.keyserver import KeyServer
from tlsserver.signers.keyserver_audit import AuditLog
from tlsserver.signers.keyserver_desk import Desk
from tlsserver.signers.keyserver_keys import KeyRing
from tlsserver.signers.keyserver_local import LocalSocket

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from engine_shim import Engine
    from support.certificates import Certificates

MESSAGE = b"what the client's server says in its handshake"


class Scene(NamedTuple):
    """A server that serves a Unix socket, or nothing yet."""

    server: KeyServer
    engine: Engine
    desk: Desk
    path: Path

    def client(self) -> KeylessClient:
        return KeylessClient.local(self.path)


@contextlib.contextmanager
def made(
    folder: Path, keys: Sequence[Path], *, engine: Engine | None = None, audit: str | None = None, **options: Any
) -> Iterator[Scene]:
    """Make a key server that does not run yet, and free all at the end."""
    allow_decrypt = options.pop("allow_decrypt", False)
    with engine or BatchEngine(1) as used:
        log = AuditLog(audit)
        desk = Desk(KeyRing.load(keys, None, used), log, allow_decrypt=allow_decrypt)
        server = KeyServer(desk, used, **options)
        try:
            yield Scene(server, used, desk, folder / "signer.sock")
        finally:
            server.close()
            log.close()


@contextlib.contextmanager
def serving(folder: Path, keys: Sequence[Path], **options: Any) -> Iterator[Scene]:
    """Serve on a Unix socket."""
    with made(folder, keys, **options) as scene:
        bound = LocalSocket(scene.path)
        try:
            scene.server.serve_local(listening=bound.socket)
            with scene.server:
                yield scene
        finally:
            bound.remove()


@contextlib.contextmanager
def serving_connected(folder: Path, keys: Sequence[Path], **options: Any) -> Iterator[tuple[Scene, socket.socket]]:
    """Serve one end of a pair; gives the other one."""
    with made(folder, keys, **options) as scene:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        scene.server.serve_local(connected=ours)
        with theirs, scene.server:
            yield scene, theirs


def public_key(certificates: Certificates, kind: str) -> Any:
    return load_pem_private_key(certificates[kind].key.read_bytes(), None).public_key()


def ski(certificates: Certificates, kind: str) -> bytes:
    """Name a key as RFC 5280 does: cryptography's word for it."""
    return x509.SubjectKeyIdentifier.from_public_key(public_key(certificates, kind)).digest


def digest_of(name: str) -> bytes:
    if name == "MD5-SHA1":
        return hashlib.md5(MESSAGE, usedforsecurity=False).digest() + hashlib.sha1(MESSAGE).digest()  # noqa: S324
    return hashlib.new(name, MESSAGE).digest()
