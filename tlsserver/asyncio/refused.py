"""What a `tlsserver.asyncio.SSLContext` refuses of `ssl.SSLContext`, by name, with what to do instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from tlsserver.asyncio.plain import NotSupportedError, PlainlessContext

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CANNOT_BE_SET", "Refused"]

_NO_PYTHON = "it would run Python code inside of OpenSSL, on the small stack of a job"

# Name of the property, the value that it has, and why it cannot have another one.
CANNOT_BE_SET: dict[str, tuple[object, str]] = {
    "sni_callback": (
        None,
        f"{_NO_PYTHON}: give certificates=[tlsserver.Certificate(...)] for more names, or on_client_hello=",
    ),
    "post_handshake_auth": (False, "clients are asked for certificates in the handshake alone: set verify_mode"),
    "_msg_callback": (None, f"{_NO_PYTHON}: set keylog_filename, and look with Wireshark"),
}


def _fixed(name: str) -> Any:  # noqa: ANN401 - a property, which mypy takes for a variable
    value, why = CANNOT_BE_SET[name]

    def get(_context: object) -> object:
        return value

    def set_(_context: object, wanted: object) -> None:
        if wanted is not None and wanted is not False:
            raise NotSupportedError(f"{name} cannot be set: {why}")

    return property(get, set_, doc=f"Always {value}: {why}.")


class Refused(PlainlessContext):
    """Names that raise `NotSupportedError`."""

    sni_callback = _fixed("sni_callback")
    post_handshake_auth = _fixed("post_handshake_auth")
    _msg_callback = _fixed("_msg_callback")

    def set_servername_callback(self, server_name_callback: Callable[..., object] | None) -> None:
        """Refuse, unless it is None; as ``sni_callback``.

        Raises:
            NotSupportedError: It is a callback.
        """
        self.sni_callback = server_name_callback

    def set_npn_protocols(self, npn_protocols: object) -> NoReturn:
        """Refuse.

        Raises:
            NotSupportedError: Always.
        """
        del npn_protocols
        raise NotSupportedError("set_npn_protocols: NPN was never a standard, and is gone: use set_alpn_protocols")

    def load_dh_params(self, path: object, /) -> NoReturn:
        """Refuse.

        Raises:
            NotSupportedError: Always.
        """
        del path
        raise NotSupportedError(
            "load_dh_params: there is no finite-field Diffie-Hellman here, as its suites are slow: remove it"
        )

    def set_psk_client_callback(self, callback: object) -> None:
        """Refuse, unless it is None.

        Raises:
            NotSupportedError: It is a callback.
        """
        _refuse_callback("set_psk_client_callback", callback)

    def set_psk_server_callback(self, callback: object, identity_hint: str | None = None) -> None:
        """Refuse, unless it is None.

        Raises:
            NotSupportedError: It is a callback.
        """
        del identity_hint
        _refuse_callback("set_psk_server_callback", callback)

    def set_client_sigalgs(self, sigalgs: object, /) -> NoReturn:
        """Refuse.

        Raises:
            NotSupportedError: Always.
        """
        del sigalgs
        raise NotSupportedError("set_client_sigalgs: what clients sign with is what servers do: use set_server_sigalgs")

    def _set_alpn_protocols(self, _protocols: object) -> NoReturn:
        raise NotSupportedError("_set_alpn_protocols: use set_alpn_protocols")


def _refuse_callback(name: str, callback: object) -> None:
    if callback is not None:
        raise NotSupportedError(f"{name}: {_NO_PYTHON}, and pre-shared keys are not served: use certificates")
