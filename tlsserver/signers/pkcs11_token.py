"""One token: found, logged in to once for all sessions, and found again when it was away."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from engine_shim.cached import cached_property
from tlsserver.errors import ConfigurationError
from tlsserver.signers.pkcs11_module import RefusedError, load_module, pkcs11

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkcs11 import _pkcs11

    from tlsserver.signers.pkcs11_module import Module
    from tlsserver.signers.pkcs11_pin import Pin
    from tlsserver.signers.pkcs11_uri import Pkcs11Uri

__all__ = ["AwayError", "Token", "close_session", "is_lost"]

_Flag = pkcs11.TokenFlag


# What a session, a handle or a token that is gone answers with. The last two are any module's last resort.
_LOST = (
    pkcs11.SessionHandleInvalid,
    pkcs11.SessionClosed,
    pkcs11.SessionCount,
    pkcs11.UserNotLoggedIn,
    pkcs11.KeyHandleInvalid,
    pkcs11.ObjectHandleInvalid,
    pkcs11.OperationActive,
    pkcs11.OperationNotInitialized,
    pkcs11.DeviceError,
    pkcs11.DeviceRemoved,
    pkcs11.TokenNotPresent,
    pkcs11.TokenNotRecognised,
    pkcs11.SlotIDInvalid,
    pkcs11.FunctionFailed,
    pkcs11.GeneralError,
)


class AwayError(ConfigurationError):
    """The token is not there now; it may come back."""


class Token:
    """The token that a URI means; any thread.

    Logging in is for all sessions of the process with a token (PKCS #11 v3.0, 5.6.8), and ends with the last of them.
    So one session is kept that does nothing else, and those that sign neither log in nor out.

    Args:
        path: The module's.
        uri: Says which token.
        pin: None: no login.

    Attributes:
        label: The token's.
        refused: Why it lets nobody in, now and later; None: it does.
        is_logged_in: Whether sessions ought to be logged in.
    """

    def __init__(self, path: str, uri: Pkcs11Uri, pin: Pin | None) -> None:
        self._path = path
        self._uri = uri
        self._pin = pin
        self._reset()
        self.refused: str | None = None
        self.is_logged_in = False
        self.label = uri.token or "?"

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._kept: tuple[int, pkcs11.Token, pkcs11.Session] | None = None

    @cached_property
    def module(self) -> Module:
        """The module, loaded when first asked for."""
        module = load_module(self._path)
        module.users.add(self)
        return module

    @property
    def pin(self) -> Pin | None:
        """Its PIN."""
        return self._pin

    def session(self) -> tuple[int, pkcs11.Token, pkcs11.Session]:
        """Open a session that is logged in.

        Returns:
            The module's generation, python-pkcs11's token, and the session; closing it is the caller's.

        Raises:
            AwayError: The token is not there.
            RefusedError: It has refused the PIN, now or once before.
            PKCS11Error: Something else has failed.
        """
        module = self.module
        with self._lock, module.call() as library:
            if self.refused is not None:
                raise RefusedError(self.refused)
            if self._kept is None or self._kept[0] != module.generation:
                found = self._find(library)
                self._kept = (module.generation, found, self._log_in(found))
                self.label = found.label
            generation, token, _ = self._kept
            return generation, token, token.open()

    def lost(self, generation: int) -> None:
        """Tell that a session has failed: the next one begins with looking for the token.

        Args:
            generation: As `session` gave it.
        """
        with self._lock:
            self._forget()
        with contextlib.suppress(ConfigurationError):
            self._look(generation)

    def _look(self, generation: int) -> None:
        """Let the module look for its tokens, if this one is not among them."""
        module = self.module
        try:
            with module.call() as library:
                self._find(library)
        except (AwayError, pkcs11.PKCS11Error):
            module.restart(generation)

    def close(self) -> None:
        """Log out, and forget the PIN."""
        with self._lock:
            self._forget()
        if "module" in self.__dict__:
            self.module.users.discard(self)
        if self._pin is not None:
            self._pin.wipe()

    def forked(self) -> None:
        """Begin anew in a forked child: nothing of the parent's is ours."""
        self._reset()

    def _forget(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            close_session(self.module, kept[0], kept[2])

    def _find(self, library: _pkcs11.lib) -> pkcs11.Token:
        """Find the one token that the URI means."""
        there = list(_tokens(library))
        if not _is_library(library, self._uri):
            raise ConfigurationError(f"PKCS #11 module {self._path} is not the one that the URI describes")
        found = [token for token in there if _is_meant(token, self._uri)]
        if len(found) == 1:
            return found[0]
        told = ", ".join(
            f"{token.label!r} (serial {token.serial.decode(errors='replace')})" for token in found or there
        )
        if found:
            raise ConfigurationError(
                f"{self._uri.describe_token()} means several tokens: {told}; add serial=... to the URI"
            )
        raise AwayError(f"no token with {self._uri.describe_token()} in {self._path}: there is {told or 'none at all'}")

    def _log_in(self, token: pkcs11.Token) -> pkcs11.Session:
        session = token.open()
        try:
            if _Flag.LOGIN_REQUIRED in token.flags:
                self._give_pin(token, session)
        except BaseException:
            with contextlib.suppress(pkcs11.PKCS11Error):
                session.close()
            raise
        return session

    def _give_pin(self, token: pkcs11.Token, session: pkcs11.Session) -> None:
        has_keypad = _Flag.PROTECTED_AUTHENTICATION_PATH in token.flags
        if self._pin is None and not has_keypad:
            return  # keys may be there for all to use; who finds none says that there was no PIN
        try:
            if not has_keypad:
                _check_tries(token)
            self.module.login(session, None if self._pin is None else self._pin.read())
            self.is_logged_in = True
        except RefusedError as error:
            self.refused = (
                f"token {token.label!r} does not let us in: {error}; not tried again until the key is reloaded"
            )
            raise RefusedError(self.refused) from error


def _check_tries(token: pkcs11.Token) -> None:
    """A service that is started again and again would lock the token in the end."""
    if _Flag.USER_PIN_FINAL_TRY in token.flags:
        raise RefusedError("one more wrong PIN locks it, so none is tried: log in once with its own tools")


def _tokens(library: _pkcs11.lib) -> Iterator[pkcs11.Token]:
    """List the tokens that were initialized."""
    for slot in library.get_slots(token_present=True):
        with contextlib.suppress(pkcs11.TokenNotPresent, pkcs11.TokenNotRecognised):
            token = slot.get_token()
            if _Flag.TOKEN_INITIALIZED in token.flags:
                yield token


def _is_meant(token: pkcs11.Token, uri: Pkcs11Uri) -> bool:
    slot = token.slot
    pairs = (
        (uri.token, token.label),
        (uri.manufacturer, token.manufacturer_id),
        (uri.model, token.model),
        (uri.serial, token.serial.decode(errors="replace")),
        (uri.slot_id, slot.slot_id),
        (uri.slot_description, slot.slot_description),
        (uri.slot_manufacturer, slot.manufacturer_id),
    )
    return all(wanted is None or wanted == there for wanted, there in pairs)


def _is_library(library: _pkcs11.lib, uri: Pkcs11Uri) -> bool:
    major, minor = library.library_version
    versions = (str(major), f"{major}.{minor}")
    return (
        uri.library_manufacturer in (None, library.manufacturer_id)
        and uri.library_description in (None, library.library_description)
        and (uri.library_version is None or uri.library_version in versions)
    )


def is_lost(error: Exception) -> bool:
    """Tell whether an error means that a session, or all of them, may do better when opened again."""
    # The base class itself stands for what has no name of its own: not initialized, or a maker's own codes.
    return isinstance(error, (*_LOST, AwayError)) or type(error) is pkcs11.PKCS11Error


def close_session(module: Module, generation: int, session: pkcs11.Session) -> None:
    """Close a session, unless it went with another initialization of its module."""
    with contextlib.suppress(pkcs11.PKCS11Error), module.call():
        if generation == module.generation:
            session.close()
