"""Session tickets: a context gets the keys of its source, which the contexts after it have as well."""

from __future__ import annotations

import dataclasses
from pathlib import PurePath
from typing import TYPE_CHECKING

from engine_shim import TicketKeys
from tlsserver.errors import ConfigurationError
from tlsserver.policy.ticket_files import FileKeys
from tlsserver.policy.ticket_redis import SCHEMES, RedisKeys
from tlsserver.policy.ticket_source import RotatingKeys, TicketSource

if TYPE_CHECKING:
    from OpenSSL import SSL

    from tlsserver.policy.settings import ContextSettings, TicketSetting

__all__ = ["apply", "keep_up", "opened", "source_of"]


def opened(settings: ContextSettings) -> ContextSettings:
    """Return the settings with the source of the keys in the place of what names it, so that it outlives the context.

    Raises:
        ConfigurationError: The keys cannot be had.
    """
    return dataclasses.replace(settings, ticket_keys=source_of(settings.ticket_keys))


def source_of(setting: TicketSetting) -> TicketSource:
    """Return what the setting names; a source is itself.

    Raises:
        ConfigurationError: The keys cannot be had.
    """
    if setting is None:
        return RotatingKeys()
    if isinstance(setting, TicketSource):
        return setting
    if isinstance(setting, TicketKeys):
        return TicketSource(setting)
    files = (setting,) if isinstance(setting, (str, PurePath)) else tuple(setting)
    if any(_is_url(file) for file in files):
        return _from_redis([str(file) for file in files])
    if not files:
        message = "ticket keys: there is no file: name one, or give None for keys of this process"
        raise ConfigurationError(message)
    return FileKeys(files)


def _is_url(file: str | PurePath) -> bool:
    return isinstance(file, str) and file.startswith(SCHEMES)


def _from_redis(urls: list[str]) -> RedisKeys:
    if len(urls) > 1:
        message = "ticket keys: a Redis is given beside others, and its keys are the only ones: give it alone"
        raise ConfigurationError(message)
    return RedisKeys(urls[0])


def apply(context: SSL.Context, settings: ContextSettings) -> None:
    """Use the keys, as they are now; after whatever sets the lifetime of sessions.

    Raises:
        ConfigurationError: The keys cannot be had.
        engine_shim.ShimError: OpenSSL refuses.
    """
    source = source_of(settings.ticket_keys)
    source.accept_for(context.get_timeout())
    source.refresh()
    source.keys.use(context)


def keep_up(settings: ContextSettings, now: float) -> float | None:
    """Let the keys be changed by time: see `TicketSource.keep_up`."""
    source = settings.ticket_keys
    return source.keep_up(now) if isinstance(source, TicketSource) else None
