"""Lists of names, as users write them, and the one line that says which of them nobody knows."""

from __future__ import annotations

import difflib
import re
from itertools import accumulate
from typing import TYPE_CHECKING

from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["refuse", "text_of"]

_SHOWN = 350  # characters: five lines of a terminal


def text_of(value: str | Sequence[str], what: str) -> str:
    """Return names in OpenSSL's form, with colons between them.

    Args:
        value: A sequence of names, or one text with colons, commas or blanks between them.
        what: What to call them in a message.

    Raises:
        ConfigurationError: There is none, or what OpenSSL would cut short.
    """
    text = value if isinstance(value, str) else ":".join(value)
    text = ":".join(re.split(r"[:,\s]+", text.strip(" \t\r\n:,")))
    if not text:
        raise ConfigurationError(f"no {what} is named: name one, or leave the setting out for the profile's")
    if not (text.isascii() and text.isprintable()):
        raise ConfigurationError(f"{what} {text!r}: names are printable ASCII")
    return text


def refuse(what: str, unknown: Iterable[str], known: Iterable[str], hint: str = "") -> None:
    """Refuse names, if there are any: say which, what may have been meant, and what there is.

    Args:
        what: What to call them.
        unknown: Those that this OpenSSL does not know.
        known: Those that it knows.
        hint: What else to say.

    Raises:
        ConfigurationError: There are unknown ones.
    """
    names = list(dict.fromkeys(unknown))
    if not names:
        return
    have = {name.lower(): name for name in known}
    close = [match for name in names for match in difflib.get_close_matches(name.lower(), have, 1, 0.8)]
    meant = f"; did you mean {', '.join(have[match] for match in dict.fromkeys(close))}?" if close else ""
    raise ConfigurationError(
        f"{what} not known to this OpenSSL: {', '.join(names)}{hint}{meant}; known: {_shown(list(have.values()))}"
    )


def _shown(names: list[str]) -> str:
    """Return as many as can be read at a glance, and how many more there are."""
    first = [name for name, end in zip(names, accumulate(len(name) + 2 for name in names), strict=True) if end < _SHOWN]
    more = len(names) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")
