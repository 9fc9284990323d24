"""Where PINs come from, and that they show up nowhere."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING

import pytest

from tlsserver.errors import ConfigurationError
from tlsserver.signers.pkcs11_pin import Pin, pin_of

if TYPE_CHECKING:
    from pathlib import Path


class Terminal(io.StringIO):
    """Somebody sits there."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pin"
    path.write_bytes(b"7531\r\n")
    path.chmod(0o600)
    return path


def test_from_a_file(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Pin(f"file:{file}").read() == b"7531"
    assert Pin(f"file://{file}").read() == b"7531"
    assert not caplog.records
    file.chmod(0o644)
    assert Pin(f"file:{file}").read() == b"7531"
    assert "can be read by others than its owner" in caplog.text


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="none cannot be read: No such file"):
        Pin(f"file:{tmp_path / 'none'}").read()
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigurationError, match="is empty: it holds the PIN"):
        Pin(f"file:{tmp_path / 'empty'}").read()


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_PIN", "7531")
    assert Pin("env:THE_PIN").read() == b"7531"
    monkeypatch.delenv("THE_PIN")
    with pytest.raises(ConfigurationError, match="the environment has no THE_PIN"):
        Pin("env:THE_PIN").read()


def test_from_a_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(text: str) -> str:
        asked.append(text)
        return "7531"

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", ask)
    pin = Pin("prompt", "token web")
    assert pin.read() == pin.read() == b"7531"
    assert asked == ["PIN of token web: "]


def test_prompt_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("7531\n"))
    with pytest.raises(ConfigurationError, match="nobody can be asked for the PIN of token web: no terminal"):
        Pin("prompt", "token web").read()


@pytest.mark.parametrize("source", ["7531", "", "file:", "env:", "prompt:7531", "keyring:7531"])
def test_source_that_there_is_not_is_not_repeated(source: str) -> None:
    with pytest.raises(ConfigurationError, match="file:PATH, env:NAME or prompt: this is none of them") as caught:
        Pin(source)
    assert "7531" not in str(caught.value)


def test_wiped(file: Path) -> None:
    pin = Pin(f"file:{file}")
    value = pin.read()
    pin.wipe()
    assert value == bytes(4)
    assert pin.read() == b"7531"
    given = Pin(b"7531")
    value = given.read()
    given.wipe()
    assert value == bytes(4)


def test_representation_tells_the_source(file: Path) -> None:
    pins = [Pin(b"7531"), Pin(f"file:{file}"), Pin("env:THE_PIN"), Pin("prompt")]
    assert [repr(pin) for pin in pins] == [
        "<Pin from given>",
        f"<Pin from file:{file}>",
        "<Pin from env:THE_PIN>",
        "<Pin from prompt>",
    ]


def test_which_one_counts(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert pin_of(None, None, None, "token web") is None
    given = pin_of(b"1", f"file:{file}", None, "token web")
    assert given is not None
    assert given.read() == b"1"
    for source in (f"file:{file}", str(file)):
        from_uri = pin_of(None, source, None, "token web")
        assert from_uri is not None
        assert from_uri.read() == b"7531"
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        value = pin_of(None, None, b"7531", "token web")
    assert value is not None
    assert value.read() == b"7531"
    assert "use pin-source" in caplog.text
    assert "7531" not in caplog.text
    with pytest.raises(ConfigurationError, match="cannot come from a command"):
        pin_of(None, "|/bin/pin", None, "token web")


def test_empty_one_is_never_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token would count it."""
    closed = Pin(b"7531")
    closed.wipe()
    monkeypatch.setattr("sys.stdin", Terminal())
    for answer in (lambda _: "", eof):
        monkeypatch.setattr("getpass.getpass", answer)
        for pin in (Pin("prompt"), Pin(b""), closed):
            with pytest.raises(ConfigurationError, match="there is no PIN of the token"):
                pin.read()


def eof(_: str) -> str:
    raise EOFError


def test_prompt_without_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ConfigurationError, match="no terminal"):
        Pin("prompt").read()


def test_as_text() -> None:
    assert Pin("7531é".encode()).text() == "7531é"
    with pytest.raises(ConfigurationError, match="is not UTF-8") as caught:
        Pin(b"7531\xff").text()
    assert caught.value.__suppress_context__
    assert "7531" not in str(caught.value)


def test_path_that_cannot_be() -> None:
    with pytest.raises(ConfigurationError, match="has a character that no path has"):
        Pin("file:/etc/pin\0").read()
