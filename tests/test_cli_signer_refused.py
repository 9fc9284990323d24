"""`tlsserver signer` with options that cannot work: one line says what, and what to do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tlsserver import cli

if TYPE_CHECKING:
    from pathlib import Path

    from support.certificates import Certificates


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TLSSERVER_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def key(certificates: Certificates) -> Path:
    return certificates["p256"].key


UNIX = "--listen unix:{tmp}/s"
REFUSED = {
    "no key to serve": UNIX,
    "nowhere to listen": "--key {key}",
    "Invalid value for '--key': it is empty": f"--key= {UNIX}",
    "cannot be read: No such file": f"--key {{tmp}}/missing {UNIX}",
    "no private key (PEM) in the files": f"--key {{tmp}}/empty {UNIX}",
    "no password in the environment variable NO_SUCH": f"--key {{key}} --key-password env:NO_SUCH {UNIX}",
    "give another path with --key-password": f"--key {{key}} --key-password file:{{tmp}}/missing {UNIX}",
    "'unix:' cannot be read: give unix:PATH": "--key {key} --listen unix:",
    "'fd:x' cannot be read": "--key {key} --listen fd:x",
    "'localhost' cannot be read": "--key {key} --listen localhost",
    "'localhost:99999' cannot be read": "--key {key} --listen localhost:99999",
    "':8443' cannot be read": "--key {key} --listen :8443",
    "certificates on both ends alone: give --ssl-certfile": "--key {key} --listen 0.0.0.0:0",
    "certificates on both ends alone: give --ssl-ca-certs": "--key {key} --listen 0.0.0.0:0 --ssl-certfile {cert}",
    "--ssl-certfile is for --listen HOST:PORT": f"--key {{key}} {UNIX} --ssl-certfile {{cert}}",
    "--allow NAME is for --listen HOST:PORT": f"--key {{key}} {UNIX} --allow front.example",
    "--allow uid: and gid: are for --listen unix:PATH": (
        "--key {key} --listen 127.0.0.1:0 --ssl-certfile {cert} --ssl-ca-certs {cert} --allow uid:0"
    ),
    "no user has the number 4294967295": f"--key {{key}} {UNIX} --user 4294967295 --group 0",
    "no user has the number 11111111111111111111:": f"--key {{key}} {UNIX} --allow uid:{'1' * 5000}",
    "no group has the number 4294967295": f"--key {{key}} {UNIX} --group 4294967295",
    "fd:0 is there twice": "--key {key} --listen fd:0 --listen fd:0",
    "11' cannot be read: give unix:PATH": f"--key {{key}} --listen fd:{'1' * 5000}",
    "11' cannot be read: give unix:PATH, HOST": f"--key {{key}} --listen localhost:{'1' * 5000}",
    "'--offload-threads': 1025": f"--key {{key}} {UNIX} --offload-threads 1025",
    "nobody reads this pipe": f"--key {{key}} {UNIX} --audit-log {{tmp}}/pipe",
    "no user 'no-such-user' on this machine": f"--key {{key}} {UNIX} --allow uid:no-such-user",
    "no group 'no-such-group' on this machine": f"--key {{key}} {UNIX} --group no-such-group",
    "give --allow gid:GROUP as well": f"--key {{key}} {UNIX} --socket-group root",
    "--offload-threads 0 is for --offload batch": f"--key {{key}} {UNIX} --offload threads --offload-threads 0",
    "--offload-threads is for --offload batch or threads": f"--key {{key}} {UNIX} --offload-threads 2",
    "audit log {tmp}/no/log cannot be written": f"--key {{key}} {UNIX} --audit-log {{tmp}}/no/log",
    "cannot listen on unix:{key}: there is a file": "--key {key} --listen unix:{key}",
    "cannot serve on fd:98765": "--key {key} --listen fd:98765",
    "certificate {tmp}/missing cannot be read": (
        "--key {key} --listen 127.0.0.1:0 --ssl-certfile {tmp}/missing --ssl-ca-certs {cert}"
    ),
}


@pytest.fixture
def unhardened(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be taken back stays out of the tests' own process."""
    monkeypatch.setattr("tlsserver.cli.signer.harden", list)
    monkeypatch.setattr("tlsserver.cli.signer.lock_memory", lambda: None)


@pytest.mark.usefixtures("unhardened")
@pytest.mark.parametrize("why", REFUSED)
def test_what_is_refused(
    tmp_path: Path, key: Path, certificates: Certificates, capsys: pytest.CaptureFixture[str], why: str
) -> None:
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    places = {"tmp": tmp_path, "key": key, "cert": certificates["p256"].cert}
    assert cli.run(["signer", *REFUSED[why].format(**places).split()]) == 2
    said = capsys.readouterr().err
    assert said.startswith("tlsserver: error: ")
    assert said.count("\n") == 1
    assert why.format(**places) in said
    assert not (tmp_path / "s").exists()


@pytest.mark.usefixtures("unhardened")
def test_without_the_right_to_drop_privileges(
    tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "lchown", lambda *_: None)  # where the test may not do it
    monkeypatch.setattr(os, "initgroups", refuse)
    command = ["signer", "--key", str(key), "--listen", f"unix:{tmp_path / 's'}", "--user", "nobody"]
    assert cli.run(command) == 2
    assert "start as root, or leave --user and --group out" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
