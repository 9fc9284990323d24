"""A key server on a thread of this process, its keys, and clients."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from engine_shim import BatchEngine
from support.keyless_client import PATIENCE, KeylessClient
from tlsserver.signers.keyserver import KeyServer
from tlsserver.signers.keyserver_audit import AuditLog
from tlsserver.signers.keyserver_desk import Desk
from tlsserver.signers.keyserver_keys import KeyRing
from tlsserver.signers.keyserver_local import LocalSocket

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from engine_shim import Engine
    from support.certificates import Certificates

MESSAGE = b"what the client's server says in its handshake"

NOBODY = 65534

# Asks for a pong as another user: it prints what came, or that nothing did.
_ASK = """
import os, socket, sys
path, uid, gid, groups = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
sock = socket.socket(socket.AF_UNIX)
os.setgroups([int(one) for one in groups.split(",") if one]), os.setgid(gid), os.setuid(uid)
try:
    sock.connect(path)
    sock.sendall(bytes.fromhex("0100000700000001") + bytes.fromhex("110001f1120000"))
    print(sock.recv(100).hex() or "closed")
except OSError as error:
    print(type(error).__name__)
"""


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


def asked_as(path: Path, uid: int, gid: int, *groups: int) -> str:
    """Ask for a pong as somebody else, which root can: the answer in hexadecimal, "closed", or the error's name."""
    listed = ",".join(map(str, groups))
    command = [sys.executable, "-c", _ASK, str(path), str(uid), str(gid), listed]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


@contextlib.contextmanager
def public_folder() -> Iterator[Path]:
    """Make a folder that others may enter: those of pytest are for their owner alone."""
    with tempfile.TemporaryDirectory() as made_here:
        folder = Path(made_here)
        folder.chmod(0o711)
        yield folder


def wait_for(scene: Scene, condition: Any) -> None:
    """Look at the end of each turn."""
    seen = threading.Event()

    def look() -> None:
        if condition():
            seen.set()
        elif not seen.is_set():
            scene.server.call_soon_threadsafe(look)

    scene.server.call_soon_threadsafe(look)
    assert seen.wait(PATIENCE)
