"""A session that signs: one for each thread, opened when it is first needed and again when it is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tlsserver.signers.pkcs11_key import NoKeyError, find_private_key, needs_pin
from tlsserver.signers.pkcs11_mechanism import answer_of, operation_of
from tlsserver.signers.pkcs11_module import pkcs11
from tlsserver.signers.pkcs11_token import AwayError, Token, close_session, is_lost

if TYPE_CHECKING:
    from engine_shim import SignRequest
    from tlsserver.signers.pkcs11_key import WantedKey

__all__ = ["LostError", "SigningSession"]


class LostError(AwayError):
    """The session is of no use any more; another one may be."""


class SigningSession:
    """The session of one thread.

    Args:
        token: Where it is opened.
    """

    def __init__(self, token: Token) -> None:
        self._token = token
        self._open: tuple[int, pkcs11.Session] | None = None
        self._keys: dict[bytes, tuple[Any, bool]] = {}

    def perform(self, request: SignRequest, wanted: WantedKey) -> bytes:
        """Let the token perform a request. Blocks.

        Args:
            request: What to do.
            wanted: Its key.

        Returns:
            The answer, as `SignRequest.complete` takes it.

        Raises:
            LostError: The session is lost, and closed; or the token is away.
            RefusedError: The token lets nobody in.
            PKCS11Error: It cannot do this.
            LookupError: No mechanism does this.
        """
        operation = operation_of(request)
        try:
            private, with_pin = self._key(wanted)
            options = {"mechanism": operation.mechanism, "mechanism_param": operation.parameter}
            if with_pin and self._token.pin is not None:
                options["pin"] = self._token.pin.text()
            with self._token.module.call():
                function = private.sign if request.operation == "sign" else private.decrypt
                return answer_of(request, function(operation.data, **options))
        except (AwayError, NoKeyError) as error:  # the key was there once, so it may come back
            self._lose()
            raise LostError(str(error)) from error
        except pkcs11.PKCS11Error as error:
            if not is_lost(error):
                raise
            self._lose()
            raise LostError(f"token {self._token.label!r} was lost: {type(error).__name__} {error}".rstrip()) from error

    def close(self) -> None:
        """Close it; another one is opened if need be."""
        opened, self._open = self._open, None
        self._keys.clear()
        if opened is not None:
            close_session(self._token.module, *opened)

    def _lose(self) -> None:
        generation = self._open[0] if self._open is not None else self._token.module.generation
        self.close()
        self._token.lost(generation)

    def _key(self, wanted: WantedKey) -> tuple[Any, bool]:
        """Find the key in the session, opened if need be."""
        module = self._token.module
        if self._open is not None and self._open[0] != module.generation:
            self.close()
        if self._open is None:
            generation, _, session = self._token.session()
            self._open = generation, session
        found = self._keys.get(wanted.key.key_id)
        if found is None:
            with module.call():
                module.check_session(self._open[1], logged_in=self._token.is_logged_in)
                private = find_private_key(self._open[1], wanted, has_pin=self._token.pin is not None)
                found = self._keys[wanted.key.key_id] = private, needs_pin(private)
        return found
