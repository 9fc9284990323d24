"""Lists of names, as users write them, and the one line that says which of them nobody knows."""

from __future__ import annotations

import difflib
import re
from itertools import accumulate
from typing import TYPE_CHECKING

from engine_shim import ShimError
from tlsserver.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from OpenSSL import SSL

    Setter = Callable[[SSL.Context, str], None]

__all__ = ["known", "refuse", "set_known", "takes", "text_of"]

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


def takes(setter: Setter, context: SSL.Context, text: str) -> bool:
    """Return whether OpenSSL takes names; the Context has them then."""
    try:
        setter(context, text)
    except ShimError:
        return False
    return True


def known(setter: Setter, context: SSL.Context, candidates: Iterable[str]) -> list[str]:
    """Return the names that OpenSSL takes; those that the Context has are others afterwards."""
    return [name for name in candidates if takes(setter, context, name)]


def set_known(
    setter: Setter,
    context: SSL.Context,
    text: str,
    *,
    asked: Iterable[str],
    candidates: Iterable[str],
    what: str,
    marks: str,
) -> None:
    """Set a list of names, each of which OpenSSL must know.

    Args:
        setter: Sets it.
        context: Where.
        text: The list, as OpenSSL takes it.
        asked: The names in it that have to be known.
        candidates: Names that may be known, to be told if one is not.
        what: What to call them.
        marks: Signs that only newer releases take in front of a name.

    Raises:
        ConfigurationError: A name is unknown (all that are, are named), or OpenSSL refuses the list.
    """
    unknown = [name for name in asked if not takes(setter, context, name)]
    if unknown:
        refuse(what, unknown, known(setter, context, candidates))
    try:
        setter(context, text)
    except ShimError as error:
        message = f"{error}: name each once, without the marks of newer ones ({marks})"
        raise ConfigurationError(message) from error


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
