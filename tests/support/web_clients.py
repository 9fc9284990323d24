"""Clients of web servers that others wrote: httpx, websockets, curl, h2load, openssl."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from websockets.sync.client import connect

from support.running import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from websockets.sync.client import ClientConnection

    from support.certificates import Identity
    from support.client_authority import Holder

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
NUMBERS = {"1.2": 0x0303, "1.3": 0x0304}


def context(identity: Identity, version: str = "1.3", holder: Holder | None = None) -> ssl.SSLContext:
    """Make a client's context of one TLS version."""
    made = ssl.create_default_context(cafile=str(identity.ca))
    made.minimum_version = made.maximum_version = VERSIONS[version]
    if holder is not None:
        made.load_cert_chain(holder.cert, holder.key)
    return made


def http_client(
    port: int, identity: Identity, version: str = "1.3", holder: Holder | None = None, **options: Any
) -> httpx.Client:
    """Make a client that keeps its connections."""
    made = context(identity, version, holder)
    return httpx.Client(base_url=f"https://localhost:{port}", verify=made, timeout=PATIENCE, trust_env=False, **options)


def websocket(
    port: int, identity: Identity, version: str = "1.3", holder: Holder | None = None, path: str = "/"
) -> ClientConnection:
    """Open a websocket."""
    made = context(identity, version, holder)
    return connect(f"wss://localhost:{port}{path}", ssl=made, open_timeout=PATIENCE, proxy=None)


def open_tls(port: int, identity: Identity, version: str = "1.3", alpn: tuple[str, ...] = ()) -> ssl.SSLSocket:
    """Open a connection of Python's ssl, and shake hands."""
    made = context(identity, version)
    if alpn:
        made.set_alpn_protocols(list(alpn))
    raw = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    return made.wrap_socket(raw, server_hostname="localhost")


def run(*command: str | Path) -> str:
    """Run a program that has to succeed, and return what it says."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def h2load(port: int, *, requests: int, clients: int, streams: int) -> int:
    """Load a server over HTTP/2, and return how many requests succeeded."""
    if shutil.which("h2load") is None:
        pytest.skip("h2load (nghttp2-client) is not installed")
    url = f"https://localhost:{port}/"
    said = run("h2load", f"-n{requests}", f"-c{clients}", f"-m{streams}", url)
    assert "Application protocol: h2" in said
    found = re.search(r"(\d+) succeeded", said)
    assert found
    return int(found[1])
