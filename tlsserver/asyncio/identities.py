"""Certificates with their keys for a `tlsserver.asyncio.SSLContext`, and the engines that perform those.

What cannot be used says so at once, as the standard library does: OSError for a file, and else an `ssl.SSLError`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import engine_shim
from engine_shim import BatchEngine, Key, KeyMismatchError, ThreadEngine, batch_threads, choose_engine
from engine_shim.identity import Identity
from tlsserver.asyncio.asked import Chain
from tlsserver.asyncio.plain import ContextError
from tlsserver.errors import ConfigurationError
from tlsserver.policy.certificate import Certificate

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine_shim import Engine

    Password = Callable[[], str | bytes | bytearray] | str | bytes | bytearray | None

__all__ = ["OFFLOADS", "Engines", "combined", "read_chain"]

OFFLOADS = ("auto", "threads", "batch", "off")
_URI = re.compile(r"(pkcs11|remote|engine|store|python):")


class Engines:
    """The engines of one context: the one that was given, or those that it makes when a key first needs them.

    Args:
        engine: Performs all keys that are given by path; None: ``offload`` says who does.
        offload: ``"auto"``: what pays for the key on this machine (`engine_shim.choose_engine`, which measures it);
            ``"threads"``, ``"batch"``; ``"off"``: OpenSSL, on the loop's thread.
        threads: Of the engines that are made; None: what suits, which for ``"batch"`` is measured
            (`engine_shim.batch_threads`).

    Raises:
        ConfigurationError: There is no such offload.
    """

    def __init__(self, engine: Engine | None, offload: str, threads: int | None) -> None:
        if offload not in OFFLOADS:
            raise ConfigurationError(
                f"offload {offload!r} is unknown: choose from {', '.join(OFFLOADS)}, or give engine="
            )
        self._given = engine
        self._offload = offload
        self._threads = threads
        self._made: dict[tuple[str, int | None], Engine] = {}

    def load(self, source: str | Path, password: str | bytes | None) -> Key | None:
        """Load a key into its engine.

        Returns:
            None: OpenSSL performs it.

        Raises:
            engine_shim.ShimError: It cannot be read.
            OSError: The same, of a file.
        """
        engine = self._given or self._chosen(source, password)
        return None if engine is None else engine.load_key(source, password)

    def _chosen(self, source: str | Path, password: str | bytes | None) -> Engine | None:
        offload, threads = self._offload, self._threads
        if offload == "auto":
            choice = choose_engine(source, password)
            offload, threads = choice.offload, choice.threads if threads is None else threads
        elif offload == "batch" and threads is None:
            threads = batch_threads(source, password)
        if offload == "off":
            return None
        made = self._made.get((offload, threads))
        if made is None or made.closed:
            made = self._made[offload, threads] = _make(offload, threads)
        return made

    def close(self) -> None:
        """Close those that were made here; their handshakes fail."""
        for engine in tuple(self._made.values()):  # another thread may make one meanwhile
            engine.close()


def _make(offload: str, threads: int | None) -> Engine:
    if offload == "batch":
        return BatchEngine(1 if threads is None else threads)
    return ThreadEngine(threads or len(os.sched_getaffinity(0)))


def read_chain(certfile: Any, keyfile: Any, password: Password, engines: Engines) -> Chain:  # noqa: ANN401 - checked here
    """Read a certificate, its chain and its key.

    Args:
        certfile: PEM file: the certificate, then its chain; the key, too, if ``keyfile`` is None.
        keyfile: PEM file of the key, or an `engine_shim.Key`.
        password: Of the key's file; or who tells it, asked only if the key is encrypted.
        engines: Perform keys that are given by path.

    Raises:
        ContextError: What is in a file cannot be used. It is an `ssl.SSLError`.
        OSError: A file cannot be read.
        TypeError: An argument is of another type.
    """
    source = _path(certfile, "certfile")
    pem = source.read_bytes()
    key: Key | Path = keyfile if isinstance(keyfile, Key) else _key_path(certfile if keyfile is None else keyfile)
    given = None if isinstance(key, Key) else _password(password, key)
    identity = Identity()
    try:
        if isinstance(key, Key):
            identity.add(pem, key)
        else:
            identity.add(pem, engines.load(key, given) or key, given)
        return Chain(source, Certificate(pem, identity).kind(), identity)
    except KeyMismatchError as error:
        raise ContextError(str(error), reason="KEY_VALUES_MISMATCH") from error
    except (engine_shim.ShimError, ConfigurationError, IndexError) as error:
        raise ContextError(f"certificate {source} with key {key}: {error}") from error


def combined(chains: tuple[Chain, ...]) -> Identity:
    """Return all chains as one identity."""
    if len(chains) == 1:
        return chains[0].identity
    both = Identity()
    for chain in chains:
        both.take(chain.identity)
    return both


def _path(given: Any, name: str) -> Path:  # noqa: ANN401 - checked here
    try:
        return Path(os.fsdecode(given))
    except TypeError:
        raise TypeError(f"{name} should be a valid filesystem path") from None


def _key_path(given: Any) -> Path:  # noqa: ANN401 - checked here
    path = _path(given, "keyfile")
    if _URI.match(str(given)) and not path.exists():
        raise ContextError(f"key {given} is no file: load it with an engine, and give the engine_shim.Key as keyfile")
    return path


def _password(password: Password, key: Path) -> str | bytes | None:
    if callable(password):
        # Keys in DER have no such word in them, and none that OpenSSL would ask a password for by default.
        if b"ENCRYPTED" not in key.read_bytes():
            return None
        password = password()
        if not isinstance(password, (str, bytes, bytearray)):
            raise TypeError("password callback must return a string")
    if password is None or isinstance(password, str):
        return password
    if isinstance(password, (bytes, bytearray)):
        return bytes(password)
    raise TypeError("password should be a string or callable")
