"""ENGINEs of OpenSSL: code of others that OpenSSL 3 loads (engine(3)), for hardware and for keys that never leave it.

They are gone from OpenSSL 4, and their files depend on a libcrypto of their own, so they work where pyOpenSSL uses a
shared OpenSSL 3. An ENGINE is process-wide: what it is made the default for it does for everybody in the process.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from engine_shim import linkage
from engine_shim.errors import EngineClosedError, EngineUnavailableError, KeyLoadError, KeyPasswordError, ShimError
from engine_shim.key import Key, read_source
from engine_shim.linkage import plugin, shared
from engine_shim.native import check, ffi, lib
from engine_shim.thirdparty import ThirdPartyEngine, secret_of, without_pin

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

__all__ = ["DEFAULT_ALGORITHMS", "OpenSSLEngine", "engines_folder", "why_no_engines"]

DEFAULT_ALGORITHMS = "RSA,EC,PKEY_CRYPTO"
"""Private-key operations and nothing else, as ENGINE_set_default_string(3) names them."""

_INSTEAD = "use a loadable provider, or a pyOpenSSL on a shared OpenSSL 3, as the distribution's python3-openssl may be"

# OpenSSL's list of ENGINEs is the process's, and so is this: by id, the file it was loaded from and who uses it.
_lock = threading.Lock()
_files: dict[str, Path] = {}
_users: dict[str, int] = {}


def why_no_engines() -> str | None:
    """Say in one line why ENGINEs cannot be used here, and what to do; None: they can.

    Raises:
        LinkageError: OpenSSL cannot be reached.
    """
    found = linkage.attach()
    if found.name != shared.NAME:
        return f"the OpenSSL that pyOpenSSL uses ({found.openssl_version}) is inside its module, not shared: {_INSTEAD}"
    if not lib.openssl_engine_exists():
        return f"{found.openssl_version} has no ENGINEs: {_INSTEAD}"
    return None


def engines_folder() -> str:
    """Name the folder in which OpenSSL looks for an ENGINE by its id: OPENSSL_ENGINES, or the one it was built for."""
    folder = lib.openssl_engine_folder()
    return os.environ.get("OPENSSL_ENGINES") or (ffi.string(folder).decode() if folder else "")


class OpenSSLEngine(ThirdPartyEngine):
    """An ENGINE of OpenSSL's: found or loaded, controlled, initialised, and made the default.

    Args:
        engine_id: The ENGINE's id, as ``pkcs11``.
        path: Of its file; None: OpenSSL looks for ``<id>.so`` in the folder that OPENSSL_ENGINES names, or in its own.
        algorithms: What it becomes the default for, in the whole process: ENGINE_set_default_string(3), such as
            ``ALL``, ``RSA,EC,PKEY_CRYPTO`` or ``CIPHERS,DIGESTS``; None or empty: nothing, only its own keys use it.
        pre: Control commands before ENGINE_init(3), in order: ``"NAME"``, ``"NAME:VALUE"``, or pairs of both.
        post: The same, after it.

    Raises:
        EngineUnavailableError: There are no ENGINEs here, or not this one, or it does not start: one line says why.
        LinkageError: OpenSSL cannot be reached.
    """

    def __init__(
        self,
        engine_id: str,
        path: str | Path | None = None,
        *,
        algorithms: str | None = DEFAULT_ALGORITHMS,
        pre: Iterable[str | tuple[str, str | None]] = (),
        post: Iterable[str | tuple[str, str | None]] = (),
    ) -> None:
        reason = why_no_engines()
        if reason:
            raise EngineUnavailableError(f"engine {engine_id} cannot be used: {reason}")
        self._id = engine_id
        self._handle = _find(engine_id, None if path is None else Path(path))
        self._is_default = False
        self._in_use = threading.Lock()  # a thread that closes waits for one that loads a key
        try:
            self._start(algorithms, pre, post)
        except BaseException:
            self._release()
            raise

    def _start(
        self,
        algorithms: str | None,
        pre: Iterable[str | tuple[str, str | None]],
        post: Iterable[str | tuple[str, str | None]],
    ) -> None:
        for command in pre:
            self._control(command)
        self._check(lib.openssl_engine_start(self._handle), "does not start: ENGINE_init failed")
        for command in post:
            self._control(command)
        if algorithms:
            with _lock:
                status = lib.openssl_engine_set_default(self._handle, algorithms.encode())
                self._is_default = status == lib.SHIM_OK
                _users[self._id] = _users.get(self._id, 0) + self._is_default
            self._check(status, f"does not become the default for {algorithms!r}")

    def _control(self, command: str | tuple[str, str | None]) -> None:
        name, value = command if isinstance(command, tuple) else _parted(command)
        given = ffi.NULL if value is None else value.encode()
        # The value may be a PIN: it is not told.
        self._check(lib.openssl_engine_control(self._handle, name.encode(), given), f"refuses the command {name!r}")

    def _check(self, status: int, what: str) -> None:
        if status == lib.SHIM_ERR_OPENSSL:
            raise EngineUnavailableError(f"engine {self._id} {what} ({_reason()})")
        check(status, f"engine {self._id}")

    @property
    def name(self) -> str:
        """The engine, as ``--offload`` names it."""
        return f"engine:{self._id}"

    def load_key(self, source: str | Path | bytes, password: str | bytes | None = None) -> Key:
        """Load a private key.

        Args:
            source: The ENGINE's own name of the key (ENGINE_load_private_key(3)): a URI, a slot, a path, whatever it
                takes. Bytes are the key itself, PEM or DER, which OpenSSL reads; for an ENGINE that only computes.
            password: What the ENGINE asks for (a PIN), or what an encrypted PEM key is encrypted with.

        Returns:
            The key. It keeps the ENGINE alive, also beyond :meth:`close`.

        Raises:
            KeyPasswordError: The password is missing or wrong.
            KeyLoadError: There is no such key.
            EngineClosedError: :meth:`close` was called.
        """
        with self._in_use:
            return self._load(source, password)

    def _load(self, source: str | Path | bytes, password: str | bytes | None) -> Key:
        if self._closed:
            raise EngineClosedError(f"engine {self._id} is closed: make a new one")
        out = ffi.new("struct key **")
        if isinstance(source, bytes):
            data, secret, what = read_source(source, password)
            given = ffi.NULL if secret is None else ffi.from_buffer(secret)
            check(lib.key_load(ffi.NULL, ffi.from_buffer(data), len(data), given, len(secret or b""), out), what)
            return self._proved(Key(self, out[0]))
        self._load_by_name(str(source), password, out)
        return Key(self, out[0])

    def _proved(self, key: Key) -> Key:
        """Sign once: an ENGINE may be the default for a kind of key without being able to sign, and all would fail."""
        try:
            key.sign(b"", digest="SHA256" if key.type.startswith(("RSA", "EC")) else None)
        except ShimError as error:
            raise KeyLoadError(
                f"engine {self._id} is the default for {key.type} keys and cannot sign with this one ({error}): "
                "make it the default for something else, as CIPHERS,DIGESTS"
            ) from error
        return key

    def _load_by_name(self, name: str, password: str | bytes | None, out: Any) -> None:  # noqa: ANN401 - cffi's
        secret = secret_of(password)
        given = ffi.NULL if secret is None else ffi.from_buffer(secret)
        status = lib.openssl_engine_load_key(self._handle, os.fsencode(name), given, len(secret or b""), out)
        what = f"engine {self._id} gives no key {without_pin(name)!r}"
        if status == lib.SHIM_ERR_PASSWORD:
            asked = "it asks for a password: give one" if secret is None else "check its name and the password"
            raise KeyPasswordError(f"{what}: {asked} ({_reason()})")
        if status == lib.SHIM_ERR_KEY:
            raise KeyLoadError(f"{what}: check its name, in the form that this ENGINE takes ({_reason()})")
        check(status, what)

    def close(self, timeout: float = 5.0) -> bool:  # noqa: ARG002 - nobody can wait for what an ENGINE does
        """Let the ENGINE go: it is the default for nothing any more, and ends with the last key that it made.

        Args:
            timeout: Not used.

        Returns:
            True.
        """
        with self._in_use:
            if not self._closed:
                self._closed = True
                self._release()
        return True

    def _release(self) -> None:
        with _lock:
            if self._is_default:
                self._is_default = False
                _users[self._id] -= 1
                if not _users[self._id]:  # another user of the same ENGINE may still count on it
                    lib.openssl_engine_unregister(self._handle)
        ffi.release(self._handle)

    def __repr__(self) -> str:
        return f"<OpenSSLEngine {self._id}{' closed' if self._closed else ''}>"


def _parted(command: str) -> tuple[str, str | None]:
    name, colon, value = command.partition(":")
    return name, value if colon else None


def _reason() -> str:
    return without_pin(ffi.string(lib.shim_last_error()).decode(errors="replace")) or "OpenSSL gives no reason"


def _find(engine_id: str, path: Path | None) -> Any:  # noqa: ANN401 - cffi's pointers have no types
    """Find an ENGINE, or load it; the handle owns it."""
    with _lock:
        is_listed = bool(lib.openssl_engine_is_listed(engine_id.encode()))
        if path is not None:
            path = path.resolve()
            if is_listed and _files.get(engine_id) != path:
                elsewhere = f"from {_files[engine_id]}" if engine_id in _files else "from elsewhere"
                raise EngineUnavailableError(
                    f"engine {engine_id} is loaded already, {elsewhere}: leave the path out, or start a new process"
                )
        if not is_listed:
            _check_file(engine_id, path)
        found = _open(engine_id, None if is_listed else path)
        if path is not None:
            _files[engine_id] = path
        return found


def _check_file(engine_id: str, path: Path | None) -> None:
    """Look into the file before OpenSSL loads it; where there is none to be found by id, OpenSSL says so."""
    file = path or Path(engines_folder(), f"{engine_id}.so")
    try:
        if path is not None or file.exists():
            plugin.check(file)
    except linkage.Refused as refused:
        raise EngineUnavailableError(f"engine {engine_id}: {refused.reason}: {refused.advice}") from refused


def _not_found(engine_id: str, path: Path | None) -> str:
    if path is not None:
        return f"{path} gives no engine {engine_id} ({_reason()}): check the id, and that the file is an ENGINE's"
    return (
        f"engine {engine_id} cannot be loaded from {engines_folder()} ({_reason()}): "
        "check the id, name its folder in OPENSSL_ENGINES, or give the path of its file"
    )


def _open(engine_id: str, path: Path | None) -> Any:  # noqa: ANN401 - cffi's pointers have no types
    before = plugin.loaded_openssl()
    out = ffi.new("struct openssl_engine **")
    file = ffi.NULL if path is None else os.fsencode(path)
    status = lib.openssl_engine_find(engine_id.encode(), file, out)
    if status == lib.SHIM_ERR_OPENSSL:
        raise EngineUnavailableError(_not_found(engine_id, path))
    check(status, f"engine {engine_id}")
    handle = ffi.gc(out[0], lib.openssl_engine_free)
    more = plugin.loaded_openssl() - before
    if more:
        raise EngineUnavailableError(
            f"engine {engine_id} depends on libraries that brought a second OpenSSL, {', '.join(sorted(more))}: "
            "end this process, and use an ENGINE built for the OpenSSL that pyOpenSSL uses"
        )
    return handle
