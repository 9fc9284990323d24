"""What a server's handshakes are made with: certificate, key, engine and policy, immutable once built.

pyOpenSSL freezes a Context at its first Connection, so a change is a new TLSContext that is swapped in; connections
keep the one that they began with.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from OpenSSL import SSL

import engine_shim
from engine_shim import key_exchange
from engine_shim.base import NativeEngine
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from engine_shim import BaseEngine, Key

__all__ = ["TLSContext"]

VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}

# Mozilla's intermediate profile (guidelines 5.7): forward secrecy and AEAD only. TLS 1.3 suites are OpenSSL's own.
INTERMEDIATE_CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)

# pyOpenSSL's attributes, because OpenSSL has no getter for most of these callbacks. All would run on a job's stack.
_PYTHON_CALLBACKS = {
    "_tlsext_servername_callback": "SNI (set_tlsext_servername_callback)",
    "_alpn_select_callback": "ALPN (set_alpn_select_callback)",
    "_verify_callback": "verification (set_verify with a callback)",
    "_info_callback": "info (set_info_callback)",
    "_keylog_callback": "key log (set_keylog_callback)",
    "_ocsp_callback": "OCSP (set_ocsp_server_callback)",
    "_cookie_generate_helper": "cookie generation (set_cookie_generate_callback)",
    "_cookie_verify_helper": "cookie verification (set_cookie_verify_callback)",
}


class TLSContext:
    """Certificate, key, engine and policy of a server. Immutable once built.

    Args:
        certificate: Path of a PEM file: the server's certificate, then its chain.
        key: A :class:`engine_shim.Key`, whose engine performs it, or the path of a private key that OpenSSL
            performs on the loop's thread.
        password: Of the private key, where ``key`` is a path.
        alpn: Application protocols in the order of preference (RFC 7301); empty: the extension is ignored.
        min_version: ``"1.2"`` or ``"1.3"``.
        max_version: The same; None: the newest that OpenSSL has.
        ciphers: TLS 1.2 suites, in OpenSSL's form (ciphers(1)); None: Mozilla's intermediate profile.
        async_io: Whether reading and writing run in jobs too, for engines that offload ciphers.
        key_exchange_ahead: Whether X25519 key pairs are made ahead of need, eight at a time, where this machine can
            (engine_shim.key_exchange); False: OpenSSL makes each when it is needed, as it does elsewhere.

    Raises:
        ConfigurationError: A file or a setting cannot work.
        engine_shim.ShimError: The key cannot be read or is not the certificate's.
    """

    __slots__ = ("__weakref__", "_async_io", "_engine", "_pyopenssl")

    def __init__(
        self,
        certificate: str | Path,
        key: Key | str | Path,
        *,
        password: str | bytes | None = None,
        alpn: Sequence[str] = (),
        min_version: str = "1.2",
        max_version: str | None = None,
        ciphers: str | None = None,
        async_io: bool = False,
        key_exchange_ahead: bool = True,
    ) -> None:
        engine_shim.attach()
        context = _make_context(ahead=key_exchange_ahead)
        context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
        context.set_min_proto_version(_version(min_version))
        if max_version is not None:
            context.set_max_proto_version(_version(max_version))
        _set_ciphers(context, ciphers or INTERMEDIATE_CIPHERS)
        _set_certificate(context, Path(certificate))
        _set_alpn(context, alpn)
        _set_key(context, key, password)
        engine = key.engine if isinstance(key, engine_shim.Key) else None
        self._set(context, engine, async_io=async_io)

    def _set(self, context: SSL.Context, engine: BaseEngine | None, *, async_io: bool) -> None:
        self._pyopenssl = context
        self._engine = engine
        self._async_io = async_io

    @classmethod
    def from_pyopenssl(
        cls, context: SSL.Context, *, engine: BaseEngine | None = None, async_io: bool = False
    ) -> TLSContext:
        """Take over a pyOpenSSL Context as it is; the keys in all its certificate slots go to ``engine``.

        Args:
            context: With certificates and keys, before its first Connection.
            engine: Performs the keys. One of a third party performs those that it has put into the Context itself, so
                nothing is wrapped. None: OpenSSL does, on the loop's thread.
            async_io: Whether reading and writing run in jobs too, for engines that offload ciphers.

        Returns:
            The context. The pyOpenSSL Context must not be changed any more.

        Raises:
            ConfigurationError: It carries Python callbacks, which would run on a job's stack, or no private key.
            engine_shim.ShimError: A key cannot be wrapped.
        """
        engine_shim.attach()
        _refuse_python_callbacks(context)
        if isinstance(engine, NativeEngine):
            _wrap_keys(context, engine)
        elif engine is not None:
            _check_key(context)
        made = cls.__new__(cls)
        made._set(context, engine, async_io=async_io)  # noqa: SLF001 - our own, half made
        return made

    @property
    def pyopenssl(self) -> SSL.Context:
        """The pyOpenSSL Context that connections are made of."""
        return self._pyopenssl

    @property
    def engine(self) -> BaseEngine | None:
        """Where the private key's operations are performed; None: on the loop's thread, by OpenSSL."""
        return self._engine

    @property
    def offloaded(self) -> bool:
        """Whether handshakes run in jobs, so that an engine can pause them."""
        return self._engine is not None or self._async_io

    @property
    def async_io(self) -> bool:
        """Whether reading and writing run in jobs as well."""
        return self._async_io

    def __repr__(self) -> str:
        return f"<TLSContext engine={self._engine.name if self._engine else 'off'}>"


def _make_context(*, ahead: bool) -> SSL.Context:
    made = key_exchange.maybe_context(SSL.TLS_SERVER_METHOD) if ahead else None
    return made or SSL.Context(SSL.TLS_SERVER_METHOD)


def _wrap_keys(context: SSL.Context, engine: NativeEngine) -> None:
    if engine_shim.wrap_context(context, engine) == 0:
        message = "the SSL.Context has no private key to wrap: call use_certificate and use_privatekey before"
        raise ConfigurationError(message)


def _check_key(context: SSL.Context) -> None:
    """A key that is missing, or not the certificate's, would fail every handshake later."""
    try:
        context.check_privatekey()
    except SSL.Error as error:
        message = f"the SSL.Context has no private key for its certificate ({_reason(error)}): use the engine's first"
        raise ConfigurationError(message) from error


def _version(name: str) -> int:
    if name not in VERSIONS:
        message = f"TLS version {name!r} is not known: choose from {', '.join(VERSIONS)}"
        raise ConfigurationError(message)
    return VERSIONS[name]


def _set_ciphers(context: SSL.Context, ciphers: str) -> None:
    try:
        context.set_cipher_list(ciphers.encode())
    except (SSL.Error, UnicodeError) as error:
        message = f"cipher list {ciphers!r} has no suite that OpenSSL knows: see `openssl ciphers`"
        raise ConfigurationError(message) from error


def _set_alpn(context: SSL.Context, protocols: Sequence[str]) -> None:
    try:
        if protocols:
            engine_shim.set_alpn(context, protocols)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


@contextmanager
def _readable(what: str, path: object) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{what} {path}: {error.strerror}: give the path of a file that this process may read"
        raise ConfigurationError(message) from error


def _set_certificate(context: SSL.Context, path: Path) -> None:
    with _readable("certificate", path):
        data = path.read_bytes()
    if b"-----BEGIN" not in data:
        message = f"certificate {path} is not a PEM file: convert it with `openssl x509 -inform DER`"
        raise ConfigurationError(message)
    try:
        context.use_certificate_chain_file(str(path))
    except SSL.Error as error:
        message = f"certificate {path} cannot be used: {_reason(error)}"
        raise ConfigurationError(message) from error


def _set_key(context: SSL.Context, key: Key | str | Path, password: str | bytes | None) -> None:
    if isinstance(key, engine_shim.Key):
        key.use(context)
    else:
        with _readable("private key", key):
            engine_shim.use_plain_key(context, key, password)


def _reason(error: SSL.Error) -> str:
    entries = error.args[0] if error.args else []
    return entries[0][-1] if entries else "OpenSSL gives no reason"


def _refuse_python_callbacks(context: SSL.Context) -> None:
    found = [name for attribute, name in _PYTHON_CALLBACKS.items() if getattr(context, attribute, None) is not None]
    if found:
        message = f"the SSL.Context has Python callbacks, which would run on a job's stack: remove {', '.join(found)}"
        raise ConfigurationError(message)
