"""Loadable providers of OpenSSL (provider(7)): keys that they hold, and ciphers that they perform."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from engine_shim import linkage
from engine_shim.errors import EngineClosedError, EngineUnavailableError, KeyLoadError, KeyPasswordError
from engine_shim.key import Key
from engine_shim.linkage import shared
from engine_shim.linkage.refusal import USE_SHARED_OPENSSL
from engine_shim.native import check, ffi, lib
from engine_shim.provider_module import check_module, find_module, load_module
from engine_shim.thirdparty import ThirdPartyEngine, secret_of, without_pin

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["OpenSSLProvider", "Preference"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
# RFC 3986, 3.1. A str that begins with a scheme is a URI; `Path` says that it is a file all the same.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class _Home(NamedTuple):
    """A provider in a library context of its own.

    Attributes:
        handle: ``struct openssl_provider *``, never freed.
        init: Address of the module's init function; None: OpenSSL loaded the module.
    """

    handle: Any
    init: int | None


# One for each name, module and configuration, for the whole process: keys and what performs them may outlive every
# object that refers to them, so a library context is never freed, and opening one again gives the same one.
_homes: dict[tuple[str, Path | None, Path | None], _Home] = {}
_lock = threading.Lock()


class OpenSSLProvider(ThirdPartyEngine):
    """A loadable provider, such as Intel's ``qatprovider`` or ``pkcs11``, for the keys that it holds or takes over.

    It is loaded into a library context of its own, beside OpenSSL's own provider, so that the rest of the process
    does not notice it. That context lives as long as the process: opening the same provider again costs nothing.

    Args:
        name: The provider's name, as in ``provider=NAME``.
        path: Of its module; None: OpenSSL looks for ``NAME.so`` in the folder OPENSSL_MODULES or in its own one. With
            the static linkage the module has to be given, here or by OPENSSL_MODULES, and must need no libcrypto.
        properties: The property query for keys (property(7)); None: ``?provider=NAME``.
        config: An OpenSSL configuration file (config(5)) to read first, for what the provider wants to be told.

    Raises:
        EngineUnavailableError: There is no such provider, its module cannot be used, or it refused.
        LinkageError: OpenSSL cannot be reached.
    """

    def __init__(
        self,
        name: str,
        path: str | Path | None = None,
        *,
        properties: str | None = None,
        config: str | Path | None = None,
    ) -> None:
        linkage.attach()
        if not _NAME.fullmatch(name):
            raise EngineUnavailableError(f"{name!r} is no provider's name: give the name, and its module as the path")
        self._provider_name = name
        self._properties = f"?provider={name}" if properties is None else properties
        self._path = None if path is None else Path(path).resolve()
        self._home = _open(name, self._path, None if config is None else Path(config).resolve())

    @property
    def name(self) -> str:
        """``provider:NAME``, as ``--offload`` names it."""
        return f"provider:{self._provider_name}"

    def close(self, timeout: float = 5.0) -> bool:  # noqa: ARG002 - there is nothing to wait for
        """Load no more keys; those that were loaded go on, because nobody can take them from the provider."""
        self._closed = True
        return True

    def load_key(self, source: str | Path | bytes, password: str | bytes | None = None) -> Key:
        """Load a private key through OSSL_STORE (ossl_store(7)).

        Args:
            source: The key's URI in the provider (``pkcs11:object=web``), or the path of a file whose key the provider
                takes over. A str that begins with a scheme is a URI; a ``Path`` is a file. Not bytes.
            password: Decrypts an encrypted key, or is the PIN.

        Returns:
            The key. It keeps the provider.

        Raises:
            EngineClosedError: The provider was closed.
            KeyPasswordError: A password is asked for, and it is missing or wrong.
            KeyLoadError: There is no key, or another provider holds it, so that it would not be offloaded.
            OSError: The file cannot be read.
        """
        if self._closed:
            raise EngineClosedError(f"{self.name} is closed: open it again to load a key")
        uri = _as_uri(source)
        key = Key(self, self._read(uri, secret_of(password)))
        holder = lib.openssl_provider_of(key._handle)  # noqa: SLF001 - a Key is ours
        held_by = "no provider" if holder == ffi.NULL else f"the provider {ffi.string(holder).decode()}"
        if held_by != f"the provider {self._provider_name}":
            raise KeyLoadError(
                f"private key {without_pin(uri)}: {held_by} holds it, not {self._provider_name}, so its operations "
                f"would run in place: give the URI of a key that {self._provider_name} holds"
            )
        return key

    def _read(self, uri: str, secret: bytes | None) -> Any:  # noqa: ANN401 - cffi's pointers have no types
        out = ffi.new("struct key **")
        given = ffi.NULL if secret is None else ffi.from_buffer(secret)
        status = lib.openssl_provider_load_key(
            self._home.handle, os.fsencode(uri), self._properties.encode(), given, len(secret or b""), out
        )
        if status == lib.SHIM_ERR_KEY:
            reason = without_pin(_last_error()) or "no private key"
            raise KeyLoadError(f"private key {without_pin(uri)}: {self.name} has none there ({reason}): check the URI")
        if status == lib.SHIM_ERR_PASSWORD:
            raise KeyPasswordError(
                f"private key {without_pin(uri)}: it is encrypted, and its password is missing or wrong"
            )
        check(status, f"private key {without_pin(uri)}")
        return out[0]

    def prefer(self, properties: str | None = None) -> Preference:
        """Make the WHOLE PROCESS prefer this provider: for ciphers, digests and key exchange, not only for keys.

        THIS IS PROCESS-WIDE. The provider is loaded into OpenSSL's default library context, where it stays, and the
        default property query becomes ``properties`` (EVP_set_default_properties(3)): from then on everything that
        uses this OpenSSL (pyOpenSSL, cryptography, and Python's ssl and hashlib where they share it) asks this
        provider first. Call it before any other thread uses OpenSSL.

        A context takes its ciphers when it is made: make it after this call, with ``async_io=True`` so that reads and
        writes may pause. Key exchange and digests are chosen at each handshake.

        - For a process that is to offload whatever it can (Intel's ``qatprovider``): call it once, and let it be.
        - For the ciphers of one context alone: ``with provider.prefer(): context = TLSContext(...)``. Afterwards
          the context has its ciphers, and nothing else in the process has changed.

        Args:
            properties: The query; None: ``?provider=NAME``, which leaves to others what this provider lacks.

        Returns:
            A context manager whose end (or ``withdraw``) brings the query from before back.

        Raises:
            EngineUnavailableError: The default library context does not take the provider.
            ShimError: The query is no property query.
        """
        _share(self._provider_name, self._path, self._home.init)
        return Preference(f"?provider={self._provider_name}" if properties is None else properties)

    def __repr__(self) -> str:
        return f"<OpenSSLProvider {self._provider_name}{f' from {self._path}' if self._path else ''}>"


class Preference:
    """A default property query in force, made by :meth:`OpenSSLProvider.prefer`. Process-wide.

    OpenSSL before 3.5 does not tell its query: one that openssl.cnf has set is not known there, and the end of a
    preference leaves none.
    """

    # Those that are not withdrawn, the last one in force; and the query from before the first of them.
    _all: ClassVar[list[Preference]] = []
    _before = ""

    def __init__(self, properties: str) -> None:
        self._query = properties
        with _lock:
            before = Preference._before if Preference._all else _query()
            check(lib.openssl_provider_set_query(properties.encode()), f"property query {properties!r}")
            Preference._before = before
            Preference._all.append(self)

    def withdraw(self) -> None:
        """Bring the query from before back, or that of a later preference; idempotent. The provider stays loaded."""
        with _lock:
            if self in Preference._all:
                Preference._all.remove(self)
                query = Preference._all[-1]._query if Preference._all else Preference._before  # noqa: SLF001 - ours
                check(lib.openssl_provider_set_query(query.encode()), "property query")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.withdraw()


def _open(name: str, path: Path | None, config: Path | None) -> _Home:
    with _lock:
        key = (name, path, config)
        if key not in _homes:
            _homes[key] = _make(name, path, config)
        return _homes[key]


def _make(name: str, path: Path | None, config: Path | None) -> _Home:
    """Load a provider for the first time."""
    init = _init_of(name, path)
    out = ffi.new("struct openssl_provider **")
    given = ffi.NULL if config is None else os.fsencode(config)
    status = lib.openssl_provider_open(name.encode(), ffi.cast("void *", init or 0), given, out)
    _check_loaded(status, name, init)
    return _Home(out[0], init)


def _init_of(name: str, path: Path | None) -> int | None:
    """Load the module ourselves, if there is a path or OpenSSL must not search; else look at what OpenSSL will load."""
    try:
        if path is not None:
            return load_module(path)
        found = find_module(name)
        if linkage.attach().name == shared.NAME:
            if found is not None:
                check_module(found)
            return None
        if found is not None:
            return load_module(found)
    except EngineUnavailableError as error:
        raise EngineUnavailableError(f"provider {name}: {error}") from error
    raise EngineUnavailableError(
        f"provider {name}: pyOpenSSL has its OpenSSL inside, and modules made for another one do not fit: give "
        f"the path of a module that needs no libcrypto, or {USE_SHARED_OPENSSL}"
    )


def _check_loaded(status: int, name: str, init: int | None) -> None:
    if status == lib.SHIM_ERR_OPENSSL:
        advice = (
            "name the folder of its module in OPENSSL_MODULES, or give the module's path"
            if init is None
            else "see its documentation for what it has to be told (config=)"
        )
        reason = _last_error() or "OpenSSL gives no reason"
        raise EngineUnavailableError(f"provider {name}: OpenSSL cannot load it ({reason}): {advice}")
    check(status, f"provider {name}")


_shared_names: set[tuple[str, Path | None]] = set()


def _share(name: str, path: Path | None, init: int | None) -> None:
    """Load it into the default library context, once; another module of the same name would not be taken."""
    with _lock:
        if (name, path) in _shared_names:
            return
        if any(known == name for known, _ in _shared_names):
            raise EngineUnavailableError(f"provider {name}: another module of that name is preferred already: use that")
        _check_loaded(lib.openssl_provider_share(name.encode(), ffi.cast("void *", init or 0)), name, init)
        _shared_names.add((name, path))


def _query() -> str:
    length = lib.openssl_provider_get_query(ffi.NULL, 0)
    out = ffi.new("char[]", length + 1)
    lib.openssl_provider_get_query(out, length + 1)
    return str(ffi.string(out).decode())


def _last_error() -> str:
    return str(ffi.string(lib.shim_last_error()).decode(errors="replace"))


def _as_uri(source: str | Path | bytes) -> str:
    if isinstance(source, bytes):
        raise KeyLoadError("a provider reads its keys itself: give a path or a URI, not the key's bytes")
    if isinstance(source, str) and _SCHEME.match(source):
        return source
    path = Path(source).absolute()
    with path.open("rb"):  # so that a file that cannot be read is told as one
        return str(path)
