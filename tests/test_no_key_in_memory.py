"""Where private keys are: the memory of servers, and of their signers, is searched for the keys' numbers.

The same search finds them in the signer, and in a server that has its keys itself: so it would find them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from helpers_web import serving

from support.core import dump, family, found_in, traces
from support.remote_site import client_context

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from helpers_web import Serving

    from support.certificates import Certificates

KINDS = ("rsa2048", "p256")

pytestmark = [
    pytest.mark.skipif(shutil.which("gcore") is None, reason="gcore(1) of gdb is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into a process that is not dumpable"),
]


def handshakes(site: Serving) -> None:
    """With each key, in both versions."""
    for kind in KINDS:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = client_context()
            context.minimum_version = context.maximum_version = version
            raw = socket.create_connection(("127.0.0.1", site.port), 30)
            with raw, context.wrap_socket(raw, server_hostname=f"{kind}.test") as tls:
                tls.sendall(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
                assert tls.recv(12) == b"HTTP/1.1 200"


def search(pids: list[int], certificates: Certificates, folder: Path) -> dict[str, list[str]]:
    """Search some processes for traces of each key."""
    found: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for pid in pids:
        core = dump(pid, folder)
        for kind in KINDS:
            found[kind] += found_in(core, traces(certificates[kind].key))
        core.unlink()
    return found


def serve_options(certificates: Certificates, *, with_keys: bool = True) -> list[str]:
    """Serve each key under a name of its own."""
    first, second = (certificates[kind] for kind in KINDS)
    keys = [f"--ssl-keyfile={first.key}"] if with_keys else []
    return [f"--ssl-certfile={first.cert}", *keys, f"--ssl-sni={second.kind}.test={second.cert},{second.key}"]


NOWHERE: dict[str, list[str]] = {kind: [] for kind in KINDS}


def test_search_finds_keys_that_are_there(certificates: Certificates, tmp_path: Path) -> None:
    with serving(*serve_options(certificates), "--offload=threads") as site:
        handshakes(site)
        found = search(family(site.process.pid), certificates, tmp_path)
    assert all("d, as OpenSSL computes with it" in found[kind] for kind in KINDS), found


def test_isolated(certificates: Certificates, tmp_path: Path) -> None:
    with serving(*serve_options(certificates), "--offload=isolated") as site:
        handshakes(site)
        server, *signer = family(site.process.pid)
        assert search([server], certificates, tmp_path) == NOWHERE
        found = search(signer, certificates, tmp_path)
    assert all(found.values()), found


@contextlib.contextmanager
def key_server(certificates: Certificates, path: Path) -> Iterator[subprocess.Popen[str]]:
    keys = [f"--key={certificates[kind].key}" for kind in KINDS]
    command = [sys.executable, "-m", "tlsserver", "signer", *keys, f"--listen=unix:{path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert any(line.startswith("  stop ") for line in process.stdout)
        try:
            yield process
        finally:
            process.kill()


def test_remote(certificates: Certificates, tmp_path: Path) -> None:
    options = serve_options(certificates, with_keys=False)
    path = tmp_path / "signer.sock"
    with key_server(certificates, path) as signer, serving(*options, f"--ssl-keyfile=remote:unix:{path}") as site:
        handshakes(site)
        assert search(family(site.process.pid), certificates, tmp_path) == NOWHERE
        found = search([signer.pid], certificates, tmp_path)
    assert all(found.values()), found
