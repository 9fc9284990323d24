"""Files of ticket keys: what they may hold, who may read them, how they are rotated; what is refused is one line."""

from __future__ import annotations

import logging
import os
import stat
from typing import TYPE_CHECKING

import pytest

from tlsserver import ConfigurationError, cli
from tlsserver.policy.ticket_files import FileKeys, add_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEYS = [os.urandom(80) for _ in range(5)]
SHORT = os.urandom(48)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return put(tmp_path / "tickets", *KEYS[:2])


def put(file: Path, *keys: bytes, mode: int = 0o600) -> Path:
    file.write_bytes(b"".join(keys))
    file.chmod(mode)
    return file


def names(*keys: bytes) -> tuple[bytes, ...]:
    return tuple(key[:16] for key in keys)


def test_forms(tmp_path: Path, file: Path) -> None:
    short = put(tmp_path / "short", SHORT)
    assert FileKeys([file]).keys.names == names(*KEYS[:2])
    assert FileKeys([short, file]).keys.names == names(SHORT, *KEYS[:2])
    assert FileKeys([str(file)]).files == (str(file),)


@pytest.mark.parametrize("size", [0, 1, 47, 79, 81, 96, 80 * 64 + 80, 80 * 64 + 1])
def test_sizes_that_are_none(tmp_path: Path, size: int) -> None:
    """Two short keys among them: 240 bytes would be five of them, or three long ones."""
    with pytest.raises(ConfigurationError, match="it must have 48 or 80"):
        FileKeys([put(tmp_path / "tickets", os.urandom(size))])


def test_the_same_key_twice(file: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"tickets: two ticket keys have the same name"):
        FileKeys([file, file])


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o666])
def test_what_everybody_can_read_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(ConfigurationError, match="everybody on this machine") as caught:
        FileKeys([file])
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="everybody on this machine"):
        add_key(file, 2)


def test_what_the_group_can_read_is_warned_about(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.chmod(0o640)
    FileKeys([file])
    assert [record.levelname for record in caplog.records] == ["WARNING"]


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda _: None, "No such file"),
    "folder": (lambda file: file.mkdir(0o700), "no regular file"),
    "pipe": (lambda file: os.mkfifo(file, 0o600), "no regular file"),  # nobody writes to it
    "loop": (lambda file: file.symlink_to(file), "symbolic links"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_cannot_be_read(file: Path, how: str) -> None:
    make, message = BROKEN[how]
    file.unlink()
    make(file)
    with pytest.raises(ConfigurationError, match=message):
        FileKeys([file])


def test_changes_are_seen_and_bad_ones_said_once(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    source = FileKeys([file])
    for content, expected in (
        (KEYS[2:4], names(*KEYS[2:4])),
        ([b"nothing"], names(*KEYS[2:4])),
        ([KEYS[4]], names(KEYS[4])),
    ):
        put(file, *content)
        for _ in range(3):
            source.refresh()
            assert source.keys.names == expected
    file.unlink()
    source.refresh()
    source.refresh()
    assert source.keys.names == names(KEYS[4])
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR", "INFO", "ERROR"]
    assert all("\n" not in record.message for record in caplog.records)


def test_nothing_secret_is_in_the_log(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    source = FileKeys([file])
    put(file, KEYS[2])
    source.refresh()
    assert KEYS[2][:16].hex() in caplog.text
    assert KEYS[2][16:24].hex() not in caplog.text


# --- gen-ticket-keys ---


def test_a_new_file_is_its_owners_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new"
    old = os.umask(0)
    try:
        assert cli.run(["gen-ticket-keys", str(file)]) == 0
    finally:
        os.umask(old)
    content = file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(content) == 80
    assert capsys.readouterr().out == (f"{file}: {content[:16].hex()} encrypts from now on; 0 older keys are kept\n")
    assert FileKeys([file]).keys.names == (content[:16],)


def test_keys_move_down_and_out(file: Path) -> None:
    first = add_key(file, 2)
    assert tuple(first[1:]) == names(*KEYS[:2])
    second = add_key(file, 2)
    assert second[1:] == [first[0], KEYS[0][:16]]
    assert len(add_key(file, 0)) == 1
    assert file.stat().st_size == 80
    assert list(file.parent.iterdir()) == [file], "nothing is left beside it"


def test_owner_mode_and_links_stay(file: Path, tmp_path: Path) -> None:
    file.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(file)
    before = file.stat()
    add_key(link, 1)
    after = file.stat()
    assert link.is_symlink()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino, "by a rename"


@pytest.mark.parametrize(
    ("content", "message"),
    [(SHORT, "a key of 48 bytes has no place beside others"), (b"x", "the file has 1 bytes")],
    ids=["short key", "no key"],  # the keys are random, the names of tests must not be
)
def test_what_keys_cannot_be_added_to(
    file: Path, content: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(file, content)
    assert cli.run(["gen-ticket-keys", str(file)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert message in told
    assert file.read_bytes() == content


@pytest.mark.parametrize("how", [how for how in BROKEN if how != "missing"])
def test_what_is_no_file(file: Path, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    file.unlink()
    BROKEN[how][0](file)
    assert cli.run(["gen-ticket-keys", str(file)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["gen-ticket-keys", str(tmp_path / "no" / "tickets")]) == 2
    assert "cannot be written: No such file or directory" in capsys.readouterr().err


def test_a_failed_write_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    before = file.read_bytes()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ConfigurationError, match="No space left"):
        add_key(file, 2)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]
