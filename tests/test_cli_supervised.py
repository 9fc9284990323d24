"""`tlsserver signer` under a supervisor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from support import keyless_client as keyless
from support import leaks
from support.keyless_client import KeylessClient
from support.keyserver_scene import digest_of, ski
from support.signer_process import check, signing

if TYPE_CHECKING:
    from pathlib import Path

    from support.certificates import Certificates


def test_supervised(tmp_path: Path, certificates: Certificates) -> None:
    """It tells which keys it has, serves those before for a while, and ends with its parent."""
    key, path = tmp_path / "key.pem", tmp_path / "s"
    key.write_bytes(certificates["p256"].key.read_bytes())
    key.chmod(0o600)
    read_end, write_end = os.pipe()
    command = ("--key", key, "--listen", f"unix:{path}", "--attended", "--status-fd", str(write_end))
    with (
        os.fdopen(read_end) as told,
        signing(*command, "--key-grace", "600", pass_fds=(write_end,), stdin=subprocess.PIPE) as signer,
    ):
        os.close(write_end)
        assert json.loads(told.readline()) == {"keys": [ski(certificates, "p256").hex()], "error": None}
        key.write_bytes(certificates["p384"].key.read_bytes())
        signer.process.send_signal(signal.SIGHUP)
        assert json.loads(told.readline()) == {"keys": [ski(certificates, "p384").hex()], "error": None}
        with KeylessClient.local(path) as client:
            check(client, certificates)
        key.write_text("rubbish")
        signer.process.send_signal(signal.SIGHUP)
        status = json.loads(told.readline())
        assert status["keys"] == [ski(certificates, "p384").hex()]
        assert str(key) in status["error"]
        assert signer.process.stdin is not None
        signer.process.stdin.close()
        signer.process.stdin = None  # communicate() would flush it
        assert told.read() == ""
        assert signer.process.wait(30) == 0


def test_grace_ends(tmp_path: Path, certificates: Certificates) -> None:
    key, path = tmp_path / "key.pem", tmp_path / "s"
    key.write_bytes(certificates["p256"].key.read_bytes())
    key.chmod(0o600)
    with (
        signing("--key", key, "--listen", f"unix:{path}", "--key-grace", "0.2") as signer,
        KeylessClient.local(path) as client,
    ):
        key.write_bytes(certificates["p384"].key.read_bytes())
        signer.process.send_signal(signal.SIGHUP)
        signer.wait_for("keys and certificates are reloaded")
        name = ski(certificates, "p256")
        assert client.ask(0x15, digest_of("SHA256"), name).opcode == keyless.SUCCESS
        assert client.ask(0x16, digest_of("SHA384"), ski(certificates, "p384")).opcode == keyless.SUCCESS
        leaks.wait_until(lambda: client.ask(0x15, digest_of("SHA256"), name).error == keyless.NO_KEY)
        assert client.ask(0x15, digest_of("SHA256"), name).error == keyless.NO_KEY


def test_attended_by_nobody(tmp_path: Path, certificates: Certificates) -> None:
    """Standard input is closed from the start on."""
    command = [sys.executable, "-m", "tlsserver", "signer", f"--key={certificates['p256'].key}", "--attended"]
    shell = ["sh", "-c", 'exec "$@" <&-', "sh", *command, f"--listen=unix:{tmp_path}/s"]
    assert subprocess.run(shell, timeout=30, capture_output=True, check=False).returncode == 0
    assert not (tmp_path / "s").exists()
