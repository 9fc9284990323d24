"""The key log: the secrets of all handshakes in a file, to look into connections with Wireshark. Never in production.

A library reads no environment behind its user's back: SSLKEYLOGFILE is honoured by the command line alone.
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

from engine_shim import ShimError
from engine_shim.key_log import write_key_log
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from OpenSSL import SSL

    from tlsserver.policy.settings import ContextSettings

__all__ = ["apply"]

logger = logging.getLogger(__name__)


def apply(context: SSL.Context, settings: ContextSettings) -> None:
    """Open the file and let the context write to it; say so, loudly, when a file is first written to.

    Raises:
        ConfigurationError: The file cannot be opened, or is not to be trusted with secrets.
    """
    path = settings.key_log
    if path is None:
        return
    try:
        is_new = write_key_log(context, path)
    except OSError as error:
        link = error.errno == errno.ELOOP
        why = (
            "it is a symbolic link: name the file that it leads to" if link else f"{error.strerror}: name another file"
        )
        raise ConfigurationError(f"key log {path} cannot be opened: {why}") from error
    except (ShimError, ValueError) as error:
        raise ConfigurationError(f"key log {path} cannot be used: {error}") from error
    if is_new:
        logger.warning("THE SECRETS OF ALL CONNECTIONS ARE WRITTEN TO %s: who reads it can decrypt them", path)
