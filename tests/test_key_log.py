"""The key log: the client's own lines, from parked handshakes too; whole, in a file that nobody else can read."""

from __future__ import annotations

import gc
import logging
import os
import re
import resource
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import engine_shim
from engine_shim.native import address_of, check, ffi, lib
from support import leaks
from support.pair import Pair, client_context
from support.python_client import VERSIONS, PythonPair, python_context
from tlsserver import ConfigurationError, TLSContext

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine_shim import ManualEngine
    from support.certificates import Identity

LINE = re.compile(r"[A-Z][A-Z0-9_]+ [0-9a-f]{64} ([0-9a-f]{64}|[0-9a-f]{96})")
LABELS = {
    "1.2": {"CLIENT_RANDOM"},
    "1.3": {
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        "CLIENT_TRAFFIC_SECRET_0",
        "SERVER_TRAFFIC_SECRET_0",
        "EXPORTER_SECRET",
    },
}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """A file that is not there yet; nobody has it open afterwards."""
    path = tmp_path / "keys.log"
    yield path
    gc.collect()
    assert not descriptors(path)


def lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


def descriptors(path: Path) -> int:
    """Count the descriptors of this process that lead to a file, or to what it was."""
    targets = leaks.holdings().descriptors.values()
    return [target.removesuffix(" (deleted)") for target in targets].count(str(path))


def handshake(context: TLSContext, identity: Identity, version: str = "1.3") -> None:
    with Pair(context.pyopenssl, client_context(identity, version), offloaded=context.offloaded) as pair:
        assert pair.finish() is engine_shim.Status.DONE


# --- What is written ---


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("offloaded", [False, True])
def test_the_lines_are_the_clients_own(
    identity: Identity, manual: ManualEngine, log: Path, version: str, offloaded: bool
) -> None:
    key = manual.load_key(identity.key) if offloaded else identity.key
    context = TLSContext(identity.cert, key, key_log=log)
    theirs = log.with_suffix(".client")
    before = engine_shim.counters()
    with PythonPair(context.pyopenssl, python_context(identity, version, theirs), offloaded=context.offloaded) as pair:
        assert pair.finish(manual.perform) == offloaded
    assert {line.split()[0] for line in lines(log)} == LABELS[version]
    assert sorted(lines(log)) == sorted(lines(theirs))
    assert all(LINE.fullmatch(line) for line in lines(log))
    assert log.read_bytes().endswith(b"\n")
    after = engine_shim.counters()
    assert after.key_log_lines - before.key_log_lines == len(LABELS[version])
    assert after.key_log_failures == before.key_log_failures


def test_a_parked_handshake_has_written_what_it_knows(identity: Identity, manual: ManualEngine, log: Path) -> None:
    """The job that writes has been paused, and another handshake has written in between."""
    parked = TLSContext(identity.cert, manual.load_key(identity.key), key_log=log)
    with Pair(parked.pyopenssl, client_context(identity, "1.3")) as pair:
        assert pair.until_parked() is engine_shim.Status.WANT_ASYNC
        half = set(lines(log))
        assert {line.split()[0] for line in half} == {
            "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
            "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        }
        handshake(TLSContext(identity.cert, identity.key, key_log=log), identity)
        manual.perform()
        assert pair.finish() is engine_shim.Status.DONE
    assert len(lines(log)) == 2 * len(LABELS["1.3"])
    randoms = [line.split()[1] for line in lines(log)]
    assert {randoms.count(one) for one in randoms} == {len(LABELS["1.3"])}
    assert half < set(lines(log))


def test_lines_of_many_threads_are_whole(identity: Identity, log: Path) -> None:
    def work() -> None:
        context = TLSContext(identity.cert, identity.key, key_log=log)
        for _ in range(10):
            handshake(context, identity)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(log)) == 4 * 10 * len(LABELS["1.3"])
    assert all(LINE.fullmatch(line) for line in lines(log))


def test_parent_and_child_write_to_the_same_file(identity: Identity, log: Path) -> None:
    context = TLSContext(identity.cert, identity.key, key_log=log)
    child = os.fork()
    if child == 0:
        try:
            handshake(context, identity)
        finally:
            os._exit(0)
    handshake(context, identity)
    assert os.waitpid(child, 0)[1] == 0
    assert len(set(lines(log))) == 2 * len(LABELS["1.3"])
    assert all(LINE.fullmatch(line) for line in lines(log))


def test_without_the_setting_nothing_is_written(
    identity: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library does not look at the environment."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))
    handshake(TLSContext(identity.cert, identity.key), identity)
    assert not (tmp_path / "keys.log").exists()


# --- One file, several contexts ---


def test_contexts_share_the_file_and_say_so_once(
    identity: Identity, log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        first = TLSContext(identity.cert, identity.key, key_log=str(log))
        second = first.replace(min_version="1.3")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "SECRETS" in caplog.text
    assert str(log) in caplog.text
    assert descriptors(log) == 1
    handshake(first, identity)
    del first
    gc.collect()
    handshake(second, identity)
    assert len(lines(log)) == 2 * len(LABELS["1.3"])


def test_a_file_that_was_moved_away_is_made_anew_by_the_next_context(identity: Identity, log: Path) -> None:
    first = TLSContext(identity.cert, identity.key, key_log=log)
    log.rename(log.with_suffix(".old"))
    second = first.replace()
    handshake(first, identity)
    handshake(second, identity)
    assert len(lines(log)) == len(lines(log.with_suffix(".old"))) == len(LABELS["1.3"])


def test_a_connection_keeps_the_file_of_its_context(identity: Identity, log: Path) -> None:
    context = TLSContext(identity.cert, identity.key, key_log=log)
    with Pair(context.pyopenssl, client_context(identity, "1.3"), offloaded=False) as pair:
        del context
        gc.collect()
        assert pair.finish() is engine_shim.Status.DONE
    assert len(lines(log)) == len(LABELS["1.3"])


# --- Whose file ---


def test_the_file_is_its_owners_alone(identity: Identity, log: Path) -> None:
    before = os.umask(0)
    try:
        context = TLSContext(identity.cert, identity.key, key_log=log)
    finally:
        os.umask(before)
    assert log.stat().st_mode & 0o777 == 0o600
    assert context.files == (identity.cert, identity.key), "what is written is not read"


def test_what_is_there_stays(identity: Identity, log: Path) -> None:
    log.touch(0o640)
    log.write_text("# mine\n")
    handshake(TLSContext(identity.cert, identity.key, key_log=log), identity)
    assert log.read_text().startswith("# mine\n")
    assert len(lines(log)) == len(LABELS["1.3"])


def bad_path(kind: str, folder: Path) -> Path:
    path = folder / kind
    if kind == "link":
        path.symlink_to(folder / "elsewhere")
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind == "readable":
        path.touch()
        path.chmod(0o604)
    elif kind == "others":
        path.touch(0o600)
    return {"folder": folder, "missing": folder / "none" / "keys", "device": Path("/dev/null")}.get(kind, path)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("link", "it is a symbolic link: name the file that it leads to"),
        ("fifo", "cannot be opened: No such device or address"),
        ("folder", "cannot be opened: Is a directory: name another file"),
        ("missing", "cannot be opened: No such file or directory"),
        ("readable", "other users can read or write it, and it gets secrets: chmod 600"),
        ("device", "it is no regular file"),
        ("others", "it is another user's"),
    ],
)
def test_files_that_are_not_to_be_trusted(
    identity: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, words: str
) -> None:
    path = bad_path(kind, tmp_path)
    if kind == "others":
        owner = path.stat().st_uid
        if owner == 0:
            os.chown(path, 12345, -1)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    before = leaks.holdings().descriptors
    with pytest.raises(ConfigurationError) as caught:
        TLSContext(identity.cert, identity.key, key_log=path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert leaks.holdings().descriptors == before
    assert not (tmp_path / "elsewhere").exists()


def test_what_cannot_work_makes_no_file(identity: Identity, log: Path) -> None:
    with pytest.raises(ConfigurationError):
        TLSContext(identity.cert, "/nowhere/key.pem", key_log=log)
    assert not log.exists()


def test_a_path_with_a_nul(identity: Identity) -> None:
    with pytest.raises(ConfigurationError, match="null"):
        TLSContext(identity.cert, identity.key, key_log="keys\0.log")


# --- Writes that fail ---


@pytest.mark.parametrize("version", VERSIONS)
def test_a_full_disk_costs_no_handshake_and_is_said_once(
    identity: Identity, capfd: pytest.CaptureFixture[str], version: str
) -> None:
    context = TLSContext(identity.cert, identity.key)
    full = os.open("/dev/full", os.O_WRONLY | os.O_CLOEXEC)
    check(lib.key_log_use(address_of(context.pyopenssl._context), full, b"full.log", ffi.new("int *")))
    before = engine_shim.counters()
    for _ in range(2):
        handshake(context, identity, version)
    after = engine_shim.counters()
    assert after.key_log_failures - before.key_log_failures == 2 * len(LABELS[version])
    assert after.key_log_lines == before.key_log_lines
    assert capfd.readouterr().err == "engine_shim: key log full.log: No space left on device: lines are missing\n"


def test_nobody_elses_descriptor_is_written_to(identity: Identity, tmp_path: Path) -> None:
    """Standard error was closed, and its number is a file of somebody else's by now."""
    context = TLSContext(identity.cert, identity.key)
    full = os.open("/dev/full", os.O_WRONLY | os.O_CLOEXEC)
    check(lib.key_log_use(address_of(context.pyopenssl._context), full, b"full.log", ffi.new("int *")))
    kept, other = os.dup(2), os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
    os.dup2(other, 2)
    try:
        handshake(context, identity)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(other)
    assert (tmp_path / "other").read_bytes() == b""


def test_a_line_that_was_torn_does_not_spoil_the_next(identity: Identity, log: Path) -> None:
    """The disk is full in the middle of a line, and has room again later."""
    limit, start = 1 << 30, (1 << 30) - 100
    log.touch(0o600)
    os.truncate(log, start)  # nothing of it takes room
    context = TLSContext(identity.cert, identity.key, key_log=log)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        handshake(context, identity)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert log.stat().st_size == limit
    handshake(context, identity)
    with log.open("rb") as file:
        file.seek(start)
        torn, *whole = file.read().decode().splitlines()
    assert len(torn) == 100
    assert [bool(LINE.fullmatch(line)) for line in whole] == [True] * len(LABELS["1.3"])
