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

from support.core import dump, dump_at, family, found_in, traces
from support.remote_site import client_context
from support.softhsm import PIN, SoftHsm, TokenProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from helpers_web import Serving

    from support.certificates import Certificates, Identity

KINDS = ("rsa2048", "p256")
SIGNS = ("EVP_PKEY_sign", "RSA_private_encrypt", "ECDSA_do_sign")  # what SoftHSM2 calls, with the key in its hands

pytestmark = [
    pytest.mark.skipif(shutil.which("gcore") is None, reason="gcore(1) of gdb is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into a process that is not dumpable"),
]


def handshake(site: Serving, kind: str, version: ssl.TLSVersion) -> None:
    """Have a key used."""
    context = client_context()
    context.minimum_version = context.maximum_version = version
    raw = socket.create_connection(("127.0.0.1", site.port), 30)
    with raw, context.wrap_socket(raw, server_hostname=f"{kind}.test") as tls:
        tls.sendall(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
        assert tls.recv(12) == b"HTTP/1.1 200"


def handshakes(site: Serving) -> None:
    """With each key, in both versions."""
    for kind in KINDS:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            handshake(site, kind, version)


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


@pytest.mark.skipif(TokenProcess.module is None, reason="p11-kit's client module is not installed")
def test_pkcs11(certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    softhsm = SoftHsm(tmp_path)
    softhsm.token("far", *(certificates[kind] for kind in KINDS))
    options = [*serve_options(certificates, with_keys=False), "--ssl-keyfile=pkcs11:token=far"]
    options += [f"--ssl-keyfile-password=pass:{PIN.decode()}", f"--pkcs11-module={TokenProcess.module}"]
    with TokenProcess(softhsm, "far", tmp_path) as token:
        for name, value in token.variables.items():
            monkeypatch.setenv(name, value)
        with serving(*options) as site:
            handshakes(site)
            assert search(family(site.process.pid), certificates, tmp_path) == NOWHERE
            for kind in KINDS:
                assert found_while_signing(token, site, certificates[kind], tmp_path)


def found_while_signing(token: TokenProcess, site: Serving, identity: Identity, folder: Path) -> list[str]:
    """SoftHSM2 has its keys encrypted, but for the moment in which it signs."""
    (signer,) = family(token.process.pid)[1:]
    core = dump_at(signer, SIGNS, folder, trigger=lambda: handshake(site, identity.kind, ssl.TLSVersion.TLSv1_3))
    return found_in(core, traces(identity.key))
