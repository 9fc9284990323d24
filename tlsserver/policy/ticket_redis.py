"""Ticket keys that machines share through Redis, which also has them rotated.

Facts
- A query of a server that is away takes seconds, and servers of TLS must start and go on without it.
- Machines disagree about the time, and see a new key at different times.

Decision
- The keys are one list, newest first, each with the time of Redis at which it was made. Whoever finds the newest too
  old pushes another one, in a transaction that fails if the list has changed since it was read (WATCH): a lock would
  need a time after which its holder counts as dead.
- A thread of its own looks every few seconds; the loop never waits. A new key decrypts at once, and encrypts when it
  has been in the list for so long that every server has it.
- Without Redis the keys of before go on: at the start random ones, of this process only. Coming and going is said once.

Trade-off
- While Redis is away, nothing rotates: a key that is stolen then is good for longer.
"""

from __future__ import annotations

import importlib
import logging
import os
import secrets
import struct
import threading
import weakref
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from engine_shim import TicketKeys
from tlsserver.errors import ConfigurationError
from tlsserver.policy.ticket_source import LIFETIME, PERIODS, SHORTEST_PERIOD, TicketSource

__all__ = ["SCHEMES", "RedisKeys"]

logger = logging.getLogger(__name__)

SCHEMES = ("redis://", "rediss://", "unix://")

_NAME = "tlsserver:ticket-keys"

# The time in seconds, and the key.
_ENTRY = struct.Struct(">Q80s")

# The one to come, the one that encrypts, and those that are accepted for a session's lifetime after.
_KEPT = 2 + PERIODS

_INTERVAL = 5.0
_SPREAD_INTERVALS = 6  # a server that was away for some looks still has a key before others use it

# An answer takes a millisecond; the start of a server waits no longer for it.
_PATIENCE = 2.0


class _Entry(NamedTuple):
    made: int
    key: bytes


class _Store:
    """The list in Redis. One thread."""

    def __init__(self, url: str) -> None:
        self._redis = _package()
        retry = self._redis.retry.Retry(self._redis.backoff.NoBackoff(), 0)  # we come back by ourselves
        try:
            self._client = self._redis.Redis.from_url(
                url, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE, retry=retry
            )
            self._client.connection_pool.make_connection()  # it connects later, but settings that make no sense show
        except (ValueError, TypeError) as error:
            raise ConfigurationError(
                f"ticket keys {_shown(url)}: {error}: write redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]"
            ) from error

    def entries(self, period: float) -> tuple[int, list[_Entry]]:
        """Return Redis' time and the list, after putting a new key into it if that is due."""
        with self._client.pipeline() as pipe:
            pipe.watch(_NAME)
            now = int(pipe.time()[0])
            entries = _entries(pipe.lrange(_NAME, 0, -1))
            # Also if the clock was set back: the next one is right again.
            if entries and 0 <= now - entries[0].made < period:
                return now, entries
            made = _Entry(now, secrets.token_bytes(80))
            pipe.multi()
            pipe.lpush(_NAME, _ENTRY.pack(*made))
            pipe.ltrim(_NAME, 0, _KEPT - 1)
            pipe.expire(_NAME, int(period * _KEPT) + 1)  # nobody leaves keys behind
            try:
                pipe.execute()
            except self._redis.WatchError:  # others were quicker, and theirs is as good
                return now, _entries(self._client.lrange(_NAME, 0, -1))
            return now, [made, *entries][:_KEPT]

    def close(self) -> None:
        self._client.close()


def _package() -> Any:  # noqa: ANN401 - an optional package, which brings its own types or not
    try:
        for part in ("retry", "backoff"):
            importlib.import_module(f"redis.{part}")
        return importlib.import_module("redis")
    except ImportError as error:
        raise ConfigurationError("ticket keys in Redis need its client: pip install 'tlsserver[redis]'") from error


def _entries(raw: list[bytes]) -> list[_Entry]:
    for one in raw:
        if len(one) != _ENTRY.size:
            raise ValueError(f"an entry of {_NAME} has {len(one)} bytes instead of {_ENTRY.size}: delete the list")
    return [_Entry(*_ENTRY.unpack(one)) for one in raw]


def _shown(url: str) -> str:
    """Return the URL without its password."""
    return url.partition("://")[0] + "://" + urlsplit(url).netloc.rpartition("@")[2] + urlsplit(url).path


def _in_order(now: int, entries: list[_Entry], spread: float) -> list[bytes]:
    """Put the one first that encrypts: the newest that everybody has, or else the oldest."""
    first = next((at for at, entry in enumerate(entries) if now - entry.made >= spread), len(entries) - 1)
    keys = [entry.key for entry in entries]
    return [keys.pop(first), *keys]


class _Fetcher:
    """What the thread does. It knows the ring, not the source: so the source may be collected, which ends it.

    Attributes:
        period: Seconds after which a new key is due. Any thread.
        looked: The first look is over, whatever came of it.
    """

    def __init__(self, url: str, keys: TicketKeys, period: float, interval: float) -> None:
        self.period = period
        self.looked = threading.Event()
        self._shown = _shown(url)
        self._store = _Store(url)
        self._keys = keys
        self._interval = interval
        self._last: list[bytes] | None = None
        self._is_away = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tlsserver-ticket-keys", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """It ends by itself then; any thread, also in a collection of garbage."""
        self._stop.set()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._look()
            self.looked.set()
            self._stop.wait(self._interval)
        self._store.close()

    def _look(self) -> None:
        try:
            now, entries = self._store.entries(self.period)
            keys = _in_order(now, entries, _SPREAD_INTERVALS * self._interval)
            if keys != self._last:
                self._keys.set(keys)
                self._last = keys
        except Exception as error:  # noqa: BLE001 - whatever it is, the keys before are good
            self._say_away(error)
        else:
            self._say_back()

    def _say_away(self, error: Exception) -> None:
        if not self._is_away:
            self._is_away = True
            kept = "random ones of this process serve" if self._last is None else "the last ones stay"
            reason = " ".join(str(error).split()) or type(error).__name__
            logger.warning("ticket keys of %s cannot be had, %s: %s", self._shown, kept, reason)

    def _say_back(self) -> None:
        if self._is_away:
            self._is_away = False
            logger.info("ticket keys of %s are to be had again", self._shown)


class RedisKeys(TicketSource):
    """Keys in Redis, shared by all servers that name it. Use one lifetime of sessions for all of them."""

    def __init__(self, url: str, *, interval: float = _INTERVAL) -> None:
        """Begin to look, and wait for the first answer, or for two seconds.

        Args:
            url: ``redis://[[user]:password@]host[:port][/database]``, ``rediss://`` for TLS, or ``unix://path``.
            interval: Seconds between two looks.

        Raises:
            ConfigurationError: The URL makes no sense, or the package ``redis`` is not installed.
        """
        super().__init__(TicketKeys())
        self._url = url
        self._interval = interval
        self._period = LIFETIME / PERIODS
        self._begin()
        self._fetcher.looked.wait(_PATIENCE)

    def accept_for(self, lifetime: float) -> None:
        """Have them rotated as this lifetime asks for."""
        self._period = self._fetcher.period = max(lifetime / PERIODS, SHORTEST_PERIOD)

    def keep_up(self, now: float) -> None:
        """Nothing is due by time, but a forked process has no thread yet."""
        del now
        if self._pid != os.getpid():
            self._finalizer.detach()
            self._begin()

    def close(self) -> None:
        """End the thread, and wait for that; the keys stay as they are."""
        self._finalizer()
        self._fetcher.join()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._fetcher = _Fetcher(self._url, self.keys, self._period, self._interval)
        self._finalizer = weakref.finalize(self, self._fetcher.stop)
