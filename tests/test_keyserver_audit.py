"""The audit log of the key server: a line for each request, before its answer, and no secret in it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from support import keyless_client as keyless
from support.keyserver_scene import MESSAGE, digest_of, serving, ski, wait_for
from tlsserver.errors import ConfigurationError
from tlsserver.signers.keyserver_audit import AuditLog

if TYPE_CHECKING:
    from pathlib import Path

    from support.certificates import Certificates


def test_audit_log(tmp_path: Path, certificates: Certificates) -> None:
    files = [certificates[kind].key for kind in ("rsa2048", "p256")]
    log, name = tmp_path / "audit", ski(certificates, "p256")
    with serving(tmp_path, files, audit=str(log)) as scene, scene.client() as client:
        signed = client.ask(0x15, digest_of("SHA256"), name)
        (first,) = map(json.loads, log.read_text().splitlines())  # it was there before the answer
        client.ask(keyless.PING, b"told to nobody")
        client.ask(0x05, digest_of("SHA256"), bytes(20))
        client.ask(0x77, MESSAGE, name)
        client.send(keyless.frame(5, b"\x11"))
        client.answer()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[0] == first
    assert [(one["operation"], one["outcome"], one["key"]) for one in lines] == [
        ("EC_SIGN_SHA256", "ok", name.hex()),
        ("RSA_SIGN_SHA256", "no such key", bytes(20).hex()),
        ("opcode 0x77", "unknown opcode", name.hex()),
        ("malformed", "the body ends within the head of an item", ""),
    ]
    assert {one["client"] for one in lines} == {f"uid:{os.geteuid()}"}
    assert all(0 <= one["microseconds"] < 1e7 and one["time"].endswith("Z") for one in lines)
    text = log.read_text()
    for secret in (signed.payload, digest_of("SHA256"), MESSAGE):
        assert secret.hex() not in text
    assert log.stat().st_mode & 0o007 == 0


def test_nothing_is_signed_that_cannot_be_noted(
    tmp_path: Path, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    name = ski(certificates, "p256")
    with serving(tmp_path, [certificates["p256"].key], audit="/dev/full") as scene, scene.client() as client:
        for _ in range(3):
            assert client.ask(0x15, digest_of("SHA256"), name).error == keyless.INTERNAL
        assert client.ask(keyless.PING).opcode == keyless.PONG
        assert caplog.text.count("so nothing is signed: No space left on device") == 1
        scene.desk.audit._path = tmp_path / "audit"
        scene.server.call_soon_threadsafe(scene.server.reopen_audit_log)
        wait_for(scene, lambda: True)
        assert client.ask(0x15, digest_of("SHA256"), name).opcode == keyless.SUCCESS
    assert len((tmp_path / "audit").read_text().splitlines()) == 4  # what could not be noted is noted later


def test_audit_log_that_was_moved_away(tmp_path: Path, certificates: Certificates) -> None:
    log, name = tmp_path / "audit", ski(certificates, "p256")
    with serving(tmp_path, [certificates["p256"].key], audit=str(log)) as scene, scene.client() as client:
        client.ask(0x15, digest_of("SHA256"), name)
        log.rename(tmp_path / "audit.1")
        scene.server.call_soon_threadsafe(scene.server.reopen_audit_log)
        wait_for(scene, lambda: True)
        client.ask(0x15, digest_of("SHA256"), name)
    assert [len((tmp_path / name).read_text().splitlines()) for name in ("audit.1", "audit")] == [1, 1]


def test_audit_log_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be written: No such file or directory"):
        AuditLog(str(tmp_path / "missing" / "log"))
    log = AuditLog()
    log.add(client="me", operation="x", key=b"", outcome="ok", seconds=0)
    assert not log.is_on
    assert log.flush()


def test_links_are_not_followed(tmp_path: Path) -> None:
    """Else whoever owns the folder could have root write to any file, and be given it."""
    precious, log = tmp_path / "precious", tmp_path / "audit"
    precious.touch()
    log.symlink_to(precious)
    with pytest.raises(ConfigurationError, match="it is a symbolic link, and none is followed"):
        AuditLog(str(log))


def test_only_a_file_of_ours_is_given_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(os, "fchown", lambda *asked: given.append(asked[1]))
    log = AuditLog(str(tmp_path / "audit"))
    log.give_to(17)
    assert given == [17]
    (tmp_path / "other name").hardlink_to(tmp_path / "audit")
    log.give_to(17)
    AuditLog("/dev/null").give_to(17)
    AuditLog("-").give_to(17)
    assert given == [17]
    log.close()


def test_standard_output_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(ConfigurationError, match="there is no standard output"):
        AuditLog("-")
