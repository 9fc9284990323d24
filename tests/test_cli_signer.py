"""`tlsserver signer` as a process: what it serves, what it refuses, what it keeps to itself."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from support import keyless_client as keyless
from support.client_authority import SERVER, Authority
from support.keyless_client import KeylessClient, request
from support.keyserver_scene import NOBODY, asked_as, digest_of, public_folder, ski
from support.signer_process import check, signing
from tlsserver.cli.signer import _say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Certificates

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TLSSERVER_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def key(certificates: Certificates, tmp_path: Path) -> Path:
    """A P-256 key that its owner alone can read."""
    path = tmp_path / "p256.pem"
    path.write_bytes(certificates["p256"].key.read_bytes())
    path.chmod(0o600)
    return path


@pytest.fixture
def public() -> Iterator[Path]:
    with public_folder() as folder:
        yield folder


# --- Serving ---


def test_unix_socket(tmp_path: Path, key: Path, certificates: Certificates) -> None:
    path = tmp_path / "s"
    with signing("--key", key, "--listen", f"unix:{path}", "--audit-log", "-") as signer:
        assert f"tlsserver signs at unix:{path}\n" in signer.said
        assert f"{ski(certificates, 'p256').hex()}  EC, {key}" in signer.said
        assert f"  clients      uid:{os.geteuid()} on this machine\n" in signer.said
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with KeylessClient.local(path) as client:
            check(client, certificates)
        code, said, log = signer.stop()
        assert code == 0
        (entry,) = map(json.loads, said.splitlines())
        assert (entry["client"], entry["outcome"]) == (f"uid:{os.geteuid()}", "ok")
        assert "1 requests signed, 0 refused" in log
    assert not path.exists()


@pytest.mark.parametrize("offload", ["off", "batch", "threads"])
def test_engines(tmp_path: Path, key: Path, certificates: Certificates, offload: str) -> None:
    path, log = tmp_path / "s", tmp_path / "audit"
    command = ("--key", key, "--listen", f"unix:{path}", "--offload", offload, "--audit-log", log, "--max-pending", "2")
    with signing(*command) as signer, KeylessClient.local(path) as client:
        assert f"  engine       {'threads' if offload == 'threads' else 'batch'}\n" in signer.said
        client.send(b"".join(request(n, 0x15, digest_of("SHA256"), ski(certificates, "p256")) for n in range(50)))
        assert {one.id for one in (client.answer() for _ in range(50)) if one is not None} == set(range(50))
    assert len(log.read_text().splitlines()) == 50


def test_settings_in_the_environment(
    tmp_path: Path, key: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    encrypted = certificates["rsa2048"].encrypted_key(b"secret")
    monkeypatch.setenv("TLSSERVER_SIGNER_KEY", f"{key}:{encrypted}")
    monkeypatch.setenv("TLSSERVER_SIGNER_KEY_PASSWORD", "env:PASSWORD")
    monkeypatch.setenv("PASSWORD", "secret")
    monkeypatch.setenv("TLSSERVER_SIGNER_LISTEN", f"unix:{path}")
    with signing() as signer, KeylessClient.local(path) as client:
        check(client, certificates)
        assert ski(certificates, "rsa2048").hex() in signer.said


def test_inherited_socket(key: Path, certificates: Certificates) -> None:
    ours, theirs = socket.socketpair()
    number = theirs.fileno()
    with ours, signing("--key", key, "--listen", f"fd:{number}", pass_fds=(number,)) as signer:
        theirs.close()
        with KeylessClient(ours) as client:
            check(client, certificates)
        assert signer.process.wait(30) == 0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "signers")


@pytest.mark.parametrize("allow", [None, "front.example"])
def test_tls(key: Path, certificates: Certificates, authority: Authority, allow: str | None) -> None:
    server = authority.issue("server", usage=SERVER, sans=[x509.DNSName("localhost")])
    client_side = authority.issue("front.example")
    options = () if allow is None else ("--allow", allow)
    with signing(
        *("--key", key, "--listen", "127.0.0.1:0", *options),
        *("--ssl-certfile", server.cert, "--ssl-keyfile", server.key, "--ssl-ca-certs", authority.cert),
    ) as signer:
        found = re.search(r"signs at 127\.0\.0\.1:(\d+)\n", signer.said)
        assert found
        told = "over TLS, whoever has a certificate of the authorities in --ssl-ca-certs" if allow is None else allow
        assert f"  clients      {told}\n" in signer.said
        context = ssl.create_default_context(cafile=str(authority.cert))
        context.load_cert_chain(client_side.cert, client_side.key)
        sock = socket.create_connection(("127.0.0.1", int(found[1])), keyless.PATIENCE)
        with KeylessClient(context.wrap_socket(sock, server_hostname="localhost")) as client:
            check(client, certificates)
        assert signer.stop()[0] == 0


def test_stopping_twice(tmp_path: Path, key: Path) -> None:
    path = tmp_path / "s"
    with signing("--key", key, "--listen", f"unix:{path}") as signer, KeylessClient.local(path) as client:
        client.socket.sendall(b"\x01\x00\x00")  # half a header: it is asked for nothing, so it is not waited for
        assert signer.stop(signal.SIGINT)[0] == 0


# --- Reloading ---


def test_reload(tmp_path: Path, certificates: Certificates) -> None:
    folder, path, log = tmp_path / "keys", tmp_path / "s", tmp_path / "audit"
    folder.mkdir()
    (folder / "one.pem").write_bytes(certificates["p384"].key.read_bytes())
    command = ("--key", folder, "--listen", f"unix:{path}", "--audit-log", log)
    with signing(*command) as signer, KeylessClient.local(path) as client:
        name = ski(certificates, "p256")
        assert client.ask(0x15, digest_of("SHA256"), name).error == keyless.NO_KEY
        (folder / "two.pem").write_bytes(certificates["p256"].key.read_bytes())
        log.rename(tmp_path / "audit.1")
        signer.process.send_signal(signal.SIGHUP)
        signer.wait_for("keys and certificates are reloaded")
        client.ask(keyless.PING)  # the loop has come to it
        check(client, certificates)
        (folder / "three.pem").write_bytes(b"-----BEGIN PRIVATE KEY-----\nrubbish")
        signer.process.send_signal(signal.SIGHUP)
        signer.wait_for("reload failed, the last good keys stay: ")
        check(client, certificates)
    assert [len((tmp_path / name).read_text().splitlines()) for name in ("audit.1", "audit")] == [1, 2]


# --- What it keeps to itself ---


def test_process_is_hardened(tmp_path: Path, key: Path) -> None:
    with signing("--key", key, "--listen", f"unix:{tmp_path / 's'}") as signer:
        assert signer.status["NoNewPrivs"] == "1"
        assert int(signer.status["Umask"], 8) == 0o077
        limits = Path(f"/proc/{signer.process.pid}/limits").read_text()
        assert re.search(r"^Max core file size\s+0\s+0\s", limits, re.MULTILINE)
        _, _, log = signer.stop()
        assert "memory may be swapped" in log or int(signer.status["VmLck"].split()[0]) > 0


@ROOT_ONLY
def test_privileges_are_dropped(public: Path, key: Path, certificates: Certificates) -> None:
    path = public / "s"
    log = public / "audit"
    command = ("--key", key, "--listen", f"unix:{path}", "--user", "nobody", "--audit-log", log)
    with signing(*command) as signer:
        assert log.stat().st_uid == NOBODY  # it can open it anew
        assert signer.status["Uid"].split() == [str(NOBODY)] * 4
        assert signer.status["Gid"].split() == [str(NOBODY)] * 4
        assert set(signer.status["Groups"].split()) <= {str(NOBODY)}
        # Not dumpable: proc(5) gives what would be the process's to root.
        assert Path(f"/proc/{signer.process.pid}/environ").stat().st_uid == 0
        assert "uid:65534 on this machine" in signer.said
        assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (NOBODY, 0o600)
        assert asked_as(path, NOBODY, NOBODY).startswith("01000007")
        with KeylessClient.local(path) as client:  # root can connect, but may not sign
            with contextlib.suppress(OSError):
                client.send(request(1, 0x15, digest_of("SHA256"), ski(certificates, "p256")))
            assert client.answer() is None
        signer.process.send_signal(signal.SIGHUP)  # the key is root's: it cannot be read any more
        assert "cannot be read: Permission denied" in signer.wait_for("the last good keys stay")
        assert signer.stop()[0] == 0
    with socket.socket(socket.AF_UNIX) as late, pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        late.connect(str(path))


@ROOT_ONLY
def test_group_alone(public: Path, key: Path) -> None:
    with signing("--key", key, "--listen", f"unix:{public / 's'}", "--group", str(NOBODY)) as signer:
        assert signer.status["Gid"].split() == [str(NOBODY)] * 4
        assert Path(f"/proc/{signer.process.pid}/environ").stat().st_gid == 0  # not dumpable: see above


def test_nobody_hears_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("tlsserver.cli.signer.click.echo", refuse)
    _say(["tlsserver signs"])  # and goes on


@ROOT_ONLY
def test_folder_that_the_user_may_not_enter(tmp_path: Path, key: Path) -> None:
    tmp_path.chmod(0o700)
    command = ("--key", key, "--listen", f"unix:{tmp_path / 's'}", "--user", "nobody")
    with signing(*command) as signer:
        code, _, log = signer.stop()
    assert code == 0
    assert "stays, the next start replaces it" in log
    with signing(*command) as signer:
        assert signer.stop()[0] == 0


@ROOT_ONLY
def test_group_of_the_socket(public: Path, key: Path) -> None:
    path = public / "s"
    command = ("--key", key, "--listen", f"unix:{path}", "--socket-group", "4711", "--allow", "gid:4711")
    with signing(*command):
        assert (path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (4711, 0o660)
        assert asked_as(path, NOBODY, 4711).startswith("01000007")
        assert asked_as(path, NOBODY, NOBODY) == "PermissionError"


def test_keys_are_never_told(tmp_path: Path, key: Path, certificates: Certificates) -> None:
    """Whatever is asked, at whatever level of logging."""
    path = tmp_path / "s"
    with signing("--key", key, "--listen", f"unix:{path}", "--log-level", "debug", "--audit-log", "-") as signer:
        answers = b""
        for opcode in range(256):
            with KeylessClient.local(path) as client:
                answer = client.ask(opcode, b"x" * 32, ski(certificates, "p256"))
                answers += answer.payload
        _, said, log = signer.stop()
    secret = key_numbers(certificates)
    pem = key.read_text().splitlines()[1]
    for told in (signer.said, said, log):
        assert secret.hex() not in told.lower()
        assert pem not in told
    assert secret not in answers


def key_numbers(certificates: Certificates) -> bytes:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - here only

    loaded = load_pem_private_key(certificates["p256"].key.read_bytes(), None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    return loaded.private_numbers().private_value.to_bytes(32, "big")
