"""PINs of tokens: where they come from, and that they show up nowhere."""

from __future__ import annotations

import getpass
import logging
import os
import stat
import sys
from pathlib import Path

from tlsserver.errors import ConfigurationError

__all__ = ["Pin", "pin_of"]

logger = logging.getLogger(__name__)

_SOURCES = "file:PATH, env:NAME or prompt"


class Pin:
    """A PIN that is read when it is first needed, and wiped at the end.

    Args:
        source: ``file:PATH``, ``env:NAME`` or ``prompt``; bytes: the PIN itself.
        whose: Whose PIN a prompt asks for.

    Raises:
        ConfigurationError: The source is of no kind that there is. What it was is not repeated: it may be a PIN.
    """

    def __init__(self, source: str | bytes, whose: str = "the token") -> None:
        self._whose = whose
        self._value: bytearray | None = None
        if isinstance(source, bytes):
            self._kind, self._where = "given", ""
            self._value = bytearray(source)
            return
        self._kind, _, self._where = source.partition(":")
        if self._kind not in ("file", "env", "prompt") or (self._kind == "prompt") == bool(self._where):
            raise ConfigurationError(f"a PIN comes from {_SOURCES}: this is none of them")

    def read(self) -> bytearray:
        """Return the PIN; the same object each time, so that wiping it wipes all.

        Raises:
            ConfigurationError: It cannot be had.
        """
        if self._value is None:
            self._value = bytearray(
                {"file": _from_file, "env": _from_environment}.get(self._kind, self._ask)(self._where)
            )
        if not self._value:  # a token would count it as a wrong one
            raise ConfigurationError(f"there is no PIN of {self._whose}: it is empty, or the signer is closed")
        return self._value

    def text(self) -> str:
        """Return the PIN as text, which some of python-pkcs11 wants; it cannot be wiped.

        Raises:
            ConfigurationError: It cannot be had, or is not UTF-8 (PKCS #11 v3.0, 2.3).
        """
        try:
            return self.read().decode()
        except UnicodeDecodeError:  # which has the PIN in it
            raise ConfigurationError(f"the PIN of {self._whose} is not UTF-8") from None

    def wipe(self) -> None:
        """Overwrite it. It is read again where it is needed again, unless it was given."""
        if self._value is not None:
            self._value[:] = bytes(len(self._value))
            self._value = None if self._kind != "given" else bytearray()

    def _ask(self, _: str) -> bytes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise ConfigurationError(
                f"nobody can be asked for the PIN of {self._whose}: no terminal; give file: or env:"
            )
        try:
            return getpass.getpass(f"PIN of {self._whose}: ").encode()
        except EOFError:
            return b""

    def __repr__(self) -> str:
        return f"<Pin from {self._kind}{':' if self._where else ''}{self._where}>"


def pin_of(source: str | bytes | None, uri_source: str | None, uri_value: bytes | None, token: str) -> Pin | None:
    """Choose the PIN: what was given by itself goes before what the URI says.

    Args:
        source: What was given by itself; see `Pin`.
        uri_source: The URI's ``pin-source``.
        uri_value: The URI's ``pin-value``.
        token: What a prompt asks for.

    Returns:
        The PIN; None: nobody has said anything, and there is no login.

    Raises:
        ConfigurationError: A source is of no kind that there is.
    """
    if source is not None:
        return Pin(source, token)
    if uri_source is not None:
        if uri_source.startswith("|"):
            raise ConfigurationError(f"the PIN cannot come from a command (pin-source=|...): use {_SOURCES}")
        # RFC 7512, 2.4: a file: URI. A path alone is what many write.
        return Pin(f"file:{uri_source}" if uri_source.startswith("/") else uri_source, token)
    if uri_value is not None:
        logger.warning("the PIN of %s is in its URI, where every user of the machine may see it: use pin-source", token)
        return Pin(uri_value, token)
    return None


def _from_file(where: str) -> bytes:
    """Read a file: a path, or what stands behind ``file:`` in a URI (RFC 8089, 2: ``file:/a/b`` or ``file:///a/b``)."""
    path = Path(where.removeprefix("//") if where.startswith("///") else where)
    try:
        mode = path.stat().st_mode
        pin = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"the PIN's file {path} cannot be read: {error.strerror}") from error
    except ValueError:
        raise ConfigurationError("the PIN's file cannot be read: its path has a character that no path has") from None
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        logger.warning("the PIN's file %s can be read by others than its owner: chmod 600", path)
    pin = pin.rstrip(b"\r\n")
    if not pin:
        raise ConfigurationError(f"the PIN's file {path} is empty: it holds the PIN and nothing else")
    return pin


def _from_environment(name: str) -> bytes:
    value = os.environ.get(name, "")
    if not value:
        raise ConfigurationError(f"the environment has no {name}, which should hold the PIN")
    return os.fsencode(value)
