"""A key server in a process of its own: that it lives as long as it is wanted, and no longer."""

from __future__ import annotations

import json
import logging
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from engine_shim import SignerEngine
from support import apart, leaks
from support.child_server import say
from support.leaks import PATIENCE
from tlsserver.errors import ConfigurationError
from tlsserver.own_python import own_python
from tlsserver.signers import child as child_module
from tlsserver.signers.child import SignerChild

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.certificates import Certificates, Identity


def key_id(identity: Identity) -> bytes:
    with SignerEngine() as engine:
        return engine.load_key(identity.cert).key_id


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    SignerEngine().close()  # what is OpenSSL's stays
    before = leaks.holdings()
    yield
    after = leaks.settled(before)
    assert (after.descriptors, after.threads) == (before.descriptors, before.threads)


@pytest.fixture
def key(certificates: Certificates, tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    shutil.copy(certificates["p256"].key, path)
    path.chmod(0o600)
    return path


@pytest.fixture
def child(key: Path) -> Iterator[SignerChild]:
    made = SignerChild([key], offload="off")
    made.start()
    yield made
    made.close()


def wait_gone(pid: int) -> None:
    """Wait until a process that is not ours has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], PATIENCE)[0]
    finally:
        os.close(fd)


def test_serves_and_ends(child: SignerChild, certificates: Certificates) -> None:
    pid = child.pid
    assert pid is not None
    assert child.key_ids() == {key_id(certificates["p256"])}
    assert child.socket.parent.stat().st_mode & 0o777 == 0o700
    assert child.close()
    wait_gone(pid)
    assert child.pid is None
    assert not child.socket.parent.exists()
    assert child.close()


def test_nothing_of_the_key_but_its_path_is_given(child: SignerChild, key: Path) -> None:
    lines = key.read_bytes().splitlines()
    pid = child.pid
    with open(f"/proc/{pid}/cmdline", "rb") as arguments, open(f"/proc/{pid}/environ", "rb") as environment:  # noqa: PTH123 - as short
        said = arguments.read() + environment.read()
    assert os.fsencode(key) in said
    assert lines[1] not in said


def test_started_anew_when_it_dies(child: SignerChild, caplog: pytest.LogCaptureFixture) -> None:
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    leaks.wait_until(lambda: child.pid not in (None, first) and child._is_told)
    assert child.restarts == 1
    assert child.socket.exists()
    assert "the signer's process has ended (signal 9): it is started anew" in caplog.text


def test_not_started_anew_when_it_is_not_wanted_any_more(child: SignerChild, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "_PAUSE_MOST", 600.0)
    monkeypatch.setattr(child_module, "_PAUSE_FIRST", 600.0)
    pid = child.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    leaks.wait_until(lambda: child.pid is None)
    assert child.close()
    assert child.restarts == 0


def test_reads_new_keys_and_keeps_those_before_for_a_while(
    child: SignerChild, certificates: Certificates, key: Path
) -> None:
    shutil.copy(certificates["p384"].key, key)
    child.reload()
    assert child.key_ids() == {key_id(certificates["p384"])}
    assert child.complaint == ""


def test_keys_that_cannot_be_read_change_nothing(
    child: SignerChild, certificates: Certificates, key: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key.write_text("garbage")
    child.reload()
    assert child.key_ids() == {key_id(certificates["p256"])}
    assert f"private key {key}" in child.complaint
    assert "signer: reload failed, the last good keys stay" in caplog.text


def test_key_that_cannot_be_read(tmp_path: Path) -> None:
    child = SignerChild([tmp_path / "none.pem"])
    missing = rf"^key {tmp_path}/none.pem cannot be read: No such file or directory; give another path$"
    with pytest.raises(ConfigurationError, match=missing):
        child.start()
    assert not child.socket.parent.exists()


@pytest.mark.parametrize("source", ["pass:{}", "{}", "file:", "env:"])
def test_password(certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    password = "a pass phrase"  # noqa: S105 - of a key made here
    key = tmp_path / "encrypted.pem"
    plain = certificates["p256"].key
    command = ("openssl", "pkcs8", "-topk8", "-in", str(plain), "-out", str(key), "-passout", f"pass:{password}")
    subprocess.run(command, check=True, capture_output=True)
    (tmp_path / "password").write_text(password)
    monkeypatch.setenv("KEY_PASSWORD", password)
    given = {"file:": f"file:{tmp_path}/password", "env:": "env:KEY_PASSWORD"}.get(source, source.format(password))
    child = SignerChild([key], password=given, offload="off")
    child.start()
    try:
        with open(f"/proc/{child.pid}/cmdline", "rb") as arguments:  # noqa: PTH123 - as short
            assert password.encode() not in arguments.read()
    finally:
        child.close()


def test_options_in_the_environment_are_not_the_childs(
    key: Path, monkeypatch: pytest.MonkeyPatch, certificates: Certificates
) -> None:
    monkeypatch.setenv("TLSSERVER_SIGNER_USER", "nobody at all")
    child = SignerChild([key], offload="off", threads=None)
    child.start()
    child.close()
    assert child.key_ids() == {key_id(certificates["p256"])}


def test_its_words_are_told_at_their_level(caplog: pytest.LogCaptureFixture, key: Path) -> None:
    caplog.set_level(logging.INFO)
    child = SignerChild([key])
    child._hear_words("2026-01-02 03:04:05,678 INFO tlsserver.signers.keyserver: stopping: 0 requests are under way")
    child._hear_words("Traceback (most recent call last):")
    child.close()
    levels = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert levels == [
        (logging.INFO, "signer: stopping: 0 requests are under way"),
        (logging.ERROR, "signer: Traceback (most recent call last):"),
    ]


def test_what_it_warns_of_is_no_reason(key: Path) -> None:
    child = SignerChild([key])
    child._hear_words("2026-01-02 03:04:05,678 WARNING tlsserver.cli.signer: memory may be swapped")
    assert child.complaint == ""
    child._hear_words("tlsserver: error: password file x cannot be read; give another path with --key-password")
    assert child.complaint == "password file x cannot be read; give another path"
    child.close()


def test_one_that_cannot_start_any_more_is_told_of_seldom(
    child: SignerChild, key: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key.unlink()
    pid = child.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    child.reload()  # returns, when it has tried
    assert child.restarts >= 2
    assert f"key {key} cannot be read" in child.complaint
    leaks.wait_until(lambda: child.restarts >= 4)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(told) == 2
    assert "(signal 9)" in told[0]
    assert f"(exit code 2: key {key} cannot be read: No such file or directory" in told[1]


def test_one_that_does_not_come_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "_START_SECONDS", 0.1)
    os.mkfifo(tmp_path / "key.pem")  # nobody writes into it
    child = SignerChild([tmp_path / "key.pem"], offload="off")
    with pytest.raises(ConfigurationError, match=r"does not begin to serve within 0\.1 s"):
        child.start()
    leaks.wait_until(lambda: not child._watcher.is_alive())
    assert child.pid is None


def test_password_in_a_file_of_a_folder_that_was_left(
    certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = certificates["p256"].key
    command = ("openssl", "pkcs8", "-topk8", "-in", str(plain), "-out", "key.pem", "-passout", "file:password")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "password").write_text("a pass phrase")
    subprocess.run(command, check=True, capture_output=True)
    child = SignerChild(["key.pem"], password="file:password", offload="off")  # noqa: S106 - a source
    monkeypatch.chdir("/")
    child.start()
    child.close()
    assert child.key_ids() == {key_id(certificates["p256"])}


def test_variable_of_the_password_may_have_any_name(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLSSERVER_SIGNER_SECRET", "not needed")
    child = SignerChild([key], password="env:TLSSERVER_SIGNER_SECRET", offload="off")  # noqa: S106 - a source
    child.start()
    child.close()
    assert child.complaint == ""


def test_settings_that_no_process_can_have(key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="the path of a private key is empty"):
        SignerChild([""])
    child = SignerChild([key], password="a\0b")  # noqa: S106 - of no key
    with pytest.raises(ConfigurationError, match="the signer's process cannot be started: embedded null byte"):
        child.start()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    child = SignerChild([key])
    with pytest.raises(ConfigurationError, match="the signer's process cannot be started: No such file"):
        child.start()
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(ConfigurationError, match=r"sys\.executable does not say where Python is"):
        SignerChild([key])
    monkeypatch.undo()
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(ConfigurationError, match="too long a path for the signer's socket in it: let TMPDIR name"):
        SignerChild([key])
    assert list(long.iterdir()) == []


def have_a_child(key: str) -> None:
    """Tell its process and its folder, then wait for the end."""
    child = SignerChild([key], offload="off")
    child._watcher.start()
    leaks.wait_until(lambda: child.pid is not None)
    say([child.pid, str(child.socket.parent)])
    child._wait_for(lambda: child._is_told)
    say("is up")
    sys.stdin.read()


@pytest.mark.parametrize("moment", ["when it is up", "before"])
def test_ends_with_its_parent_however_that_ends(key: Path, moment: str) -> None:
    if moment == "before":
        key.unlink()
        os.mkfifo(key)  # it never gets beyond that
    parent = subprocess.Popen(
        apart.command(__name__, "have_a_child", key),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=apart.environment(),
    )
    assert parent.stdout is not None
    with parent:
        pid, folder = json.loads(parent.stdout.readline())
        if moment == "before":
            key_fd = os.open(key, os.O_WRONLY)  # when it is there, where it waits for what never comes
        else:
            key_fd = os.open(key, os.O_RDONLY)
            parent.stdout.readline()
        parent.kill()
    wait_gone(pid)
    os.close(key_fd)
    assert not os.path.exists(folder)  # noqa: PTH110 - a string


def test_forked_child_leaves_the_process_to_its_parent(child: SignerChild) -> None:
    if (forked := os.fork()) == 0:
        os._exit(0 if child.close() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0
    assert child.pid is not None
    os.kill(child.pid, 0)
    assert child.socket.parent.exists()


def test_forked_child_does_not_keep_it_alive(child: SignerChild) -> None:
    until, done = os.pipe()
    if (forked := os.fork()) == 0:
        os.close(done)
        os._exit(len(os.read(until, 1)))
    os.close(until)
    try:
        assert child.close()
    finally:
        os.close(done)
        os.waitpid(forked, 0)


def test_fork_while_another_thread_reloads(child: SignerChild) -> None:
    with child._one_reload:
        if (forked := os.fork()) == 0:
            signal.alarm(30)
            child.reload()
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0


def test_our_own_python_has_the_places_that_we_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", tmp_path, *sys.path, "/n\u00f6where/\udcff"])
    command = own_python("import here; print(sys.path[0], ascii(sys.path[-1]))")
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{tmp_path} '/n\\xf6where/\\udcff'"


def test_our_own_python_takes_nothing_from_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('another json')")
    done = subprocess.run(
        own_python("import json, tlsserver; print(tlsserver.__file__)"),
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == sys.modules["tlsserver"].__file__
