"""Every example is a file under 70 lines that a test runs as its user would."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from support.client_authority import Authority
from support.clients import Target, curl
from support.kms import KEY_ID, Kms
from support.softhsm import PIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Certificates, Identity
    from support.softhsm import SoftHsm

EXAMPLES = Path(__file__).parent.parent / "examples"
TESTS = {"slow_key_test.py": "third second first\n", "scripted_provider_test.py": "served meanwhile\n"}
SERVERS = ("echo_server.py", "hello_http.py", "existing_context.py", "trio_echo.py")
OTHERS = ("twisted_server.py", "cheroot_server.py")


@pytest.fixture
def identity(certificates: Certificates) -> Identity:
    return certificates["rsa2048"]


def start(name: str, *arguments: object) -> subprocess.Popen[str]:
    root = str(EXAMPLES.parent)
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    )


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, identity: Identity) -> Iterator[tuple[str, int]]:
    process = start(request.param, identity.cert, identity.key, 0)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        pytest.fail(process.communicate()[1])
    yield request.param, int(line.rpartition(":")[2])
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")


def test_server(server: tuple[str, int], identity: Identity) -> None:
    name, port = server
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    context = ssl.create_default_context(cafile=str(identity.ca))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        tls.sendall(request)
        answer = tls.recv(len(request)) if name != "hello_http.py" else b"".join(iter(lambda: tls.recv(4096), b""))
    if name == "hello_http.py":
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"hello over TLSv1.3" in answer
    else:
        assert answer == request


@pytest.mark.parametrize("name", TESTS)
def test_test_kit(identity: Identity, name: str) -> None:
    process = start(name, identity.cert, identity.key)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, errors, output) == (0, "", TESTS[name])


def test_sign_documents(certificates: Certificates) -> None:
    process = start("sign_documents.py", certificates["p256"].key)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    count, seconds = re.match(r"(\d+) documents signed in ([\d.]+) s; one after another: 200 s$", output).groups()  # type: ignore[union-attr]
    assert int(count) == 1000
    assert 0.2 <= float(seconds) < 10  # 0.4 s on a quiet machine


def test_mutual_tls(identity: Identity, tmp_path: Path) -> None:
    clients = Authority(tmp_path, "clients")
    alice, guest = clients.issue("alice", sans=[x509.DNSName("alice.example")]), clients.issue("guest")
    process = start("mutual_tls.py", identity.cert, identity.key, clients.cert, 0)
    assert process.stdout is not None
    port = int(process.stdout.readline().rpartition(":")[2])
    answers = []
    for holder in (alice, guest):
        context = ssl.create_default_context(cafile=str(identity.ca))
        context.load_cert_chain(holder.cert, holder.key)
        raw = socket.create_connection(("127.0.0.1", port), timeout=30)
        with raw, contextlib.suppress(ssl.SSLError), context.wrap_socket(raw, server_hostname="localhost") as tls:
            answers.append(tls.recv(100))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors, answers) == (0, "", [b"hello CN=alice (alice.example)\n"])


def test_certificates_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    process = start("certificates_on_demand.py", 0, tmp_path / "authority.pem")
    assert process.stdout is not None
    port = int(process.stdout.readline().rpartition(":")[2])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(tmp_path / "authority.pem")
    for name in ("one.localhost", "Two.localhost", "one.localhost"):
        sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        with context.wrap_socket(sock, server_hostname=name) as tls:
            tls.sendall(b"hello")
            assert tls.recv(5) == b"hello"
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as sock,
        pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"),
    ):
        context.wrap_socket(sock, server_hostname="one.example")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize("kind", ["rsa2048", "p256"])
def test_kms_signer(certificates: Certificates, kind: str) -> None:
    identity = certificates[kind]
    with Kms(identity) as kms:
        kms.failures = 1  # the example tries once more
        process = start("kms_signer.py", identity.cert, kms.url, KEY_ID, 0)
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        for version in ("1.2", "1.3"):
            (answer,) = curl(Target(port, identity, version), [b""])
            assert answer.reply.body == b"hello; the key is not here\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0
        assert errors == "signer kms: it raised OSError: the KMS says 500: try again\n"
        expected = "ECDSA_SHA_256" if kind == "p256" else "RSASSA_PSS_SHA_256"
        assert kms.algorithms == [expected] * 2


def test_softhsm(softhsm: SoftHsm, web: str, identity: Identity, tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_bytes(PIN)
    pin.chmod(0o600)
    assert softhsm.configuration.exists()
    process = start("softhsm.py", identity.cert, web, f"file:{pin}", 0)
    assert process.stdout is not None
    port = int(process.stdout.readline().rpartition(":")[2])
    context = ssl.create_default_context(cafile=str(identity.ca))
    raw = socket.create_connection(("127.0.0.1", port), timeout=30)
    with raw, context.wrap_socket(raw, server_hostname="localhost") as tls:
        tls.sendall(b"hello")
        assert tls.recv(5) == b"hello"
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, errors, output) == (0, "", "1 signatures by pkcs11:web\n")


@pytest.mark.parametrize("name", OTHERS)
def test_servers_of_others(identity: Identity, name: str) -> None:
    process = start(name, identity.cert, identity.key, 0, *([0] if name == "twisted_server.py" else []))
    assert process.stdout is not None
    port = int(process.stdout.readline().rpartition(":")[2])
    for version in ("1.2", "1.3"):
        command = ["curl", "-sS", "--cacert", str(identity.ca), "--resolve", f"localhost:{port}:127.0.0.1"]
        command += [f"--tlsv{version}", "--tls-max", version, f"https://localhost:{port}/"]
        done = subprocess.run(command, capture_output=True, timeout=30, check=True)
        expected = b"hello over HTTP/2\n" if name == "twisted_server.py" else f"hello over TLSv{version}, ".encode()
        assert done.stdout.startswith(expected)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")


def test_every_example_is_short_and_run_here() -> None:
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) < 70, path
        own = ("softhsm.py", "kms_signer.py", "sign_documents.py", "mutual_tls.py", "certificates_on_demand.py")
        asgi = ("uvicorn_app.py", "hypercorn_http2.py", "aiohttp_site.py")  # tests/test_examples_asgi.py
        assert path.name in (*SERVERS, *TESTS, *own, *OTHERS, *asgi), f"{path.name} is not run by a test"
