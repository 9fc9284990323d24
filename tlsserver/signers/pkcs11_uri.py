"""PKCS #11 URIs (RFC 7512): which module, which token, which key, and where its PIN is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import unquote_to_bytes

from tlsserver.errors import ConfigurationError

__all__ = ["Pkcs11Uri"]

# RFC 7512, 2.3. Each set is pk11-pchar or pk11-qchar without percent-encoding.
_RESERVED = ":[]@!$'()*+,="
_UNRESERVED = r"A-Za-z0-9._~\-"
_ENCODED = "%[0-9A-Fa-f]{2}"
_PATH_VALUE = re.compile(f"(?:[{_UNRESERVED}{re.escape(_RESERVED)}&]|{_ENCODED})*")
_QUERY_VALUE = re.compile(f"(?:[{_UNRESERVED}{re.escape(_RESERVED)}/?|]|{_ENCODED})*")
_NAME = re.compile("[A-Za-z0-9_-]+")
_VERSION = re.compile(r"[0-9]+(\.[0-9]+)?")
_TYPES = ("public", "private", "cert", "secret-key", "data")
_SCHEME = "pkcs11:"


@dataclass(frozen=True)
class Pkcs11Uri:
    """What a PKCS #11 URI says; None: it does not say it.

    Attributes:
        token: The token's label.
        manufacturer: Of the token.
        serial: The token's serial number.
        model: Of the token.
        library_manufacturer: Of the module.
        library_version: Of the module: ``"2"`` or ``"2.6"``.
        library_description: Of the module.
        object: The key's label (CKA_LABEL).
        type: ``"private"`` for a private key; see RFC 7512 for the others.
        id: The key's id (CKA_ID): bytes.
        slot_description: Of the slot.
        slot_manufacturer: Of the slot.
        slot_id: The slot's number.
        pin_source: Where the PIN is: ``"file:/etc/token.pin"``.
        pin_value: The PIN itself; in no representation of this object.
        module_name: The module's name without prefix and suffix: ``"softhsm2"``.
        module_path: The module's path.
    """

    token: str | None = None
    manufacturer: str | None = None
    serial: str | None = None
    model: str | None = None
    library_manufacturer: str | None = None
    library_version: str | None = None
    library_description: str | None = None
    object: str | None = None
    type: str | None = None
    id: bytes | None = None
    slot_description: str | None = None
    slot_manufacturer: str | None = None
    slot_id: int | None = None
    pin_source: str | None = None
    pin_value: bytes | None = field(default=None, repr=False)
    module_name: str | None = None
    module_path: str | None = None

    @classmethod
    def parse(cls, text: str) -> Pkcs11Uri:
        """Read a URI.

        An attribute of the path that is not known is refused: it would have told things apart. One of the query is
        ignored (RFC 7512, 2.3 and 2.4).

        Args:
            text: ``pkcs11:token=...;object=...?pin-source=...``.

        Returns:
            What it says.

        Raises:
            ConfigurationError: It is no PKCS #11 URI. The message holds no value of the query.
        """
        if not text.lower().startswith(_SCHEME):
            raise ConfigurationError("a PKCS #11 URI begins with pkcs11:, as in pkcs11:token=web;object=server-key")
        path, _, query = text[len(_SCHEME) :].partition("?")
        values = _attributes(path, ";", _PATH_VALUE, _PATH) | _attributes(query, "&", _QUERY_VALUE, _QUERY)
        if "pin-source" in values and "pin-value" in values:
            raise ConfigurationError("the PKCS #11 URI has both pin-source and pin-value: leave pin-value out")
        return cls(**{name.replace("-", "_"): _decoded(name, value) for name, value in values.items()})

    def describe_token(self) -> str:
        """Say which token is meant, for messages."""
        names = (name for name in _PATH if name not in ("object", "id", "type"))
        told = ((name, getattr(self, name.replace("-", "_"))) for name in names)
        return ", ".join(f"{name} {value!r}" for name, value in told if value is not None) or "any token"

    def describe_key(self) -> str:
        """Say which key is meant, for messages."""
        told = [] if self.object is None else [f"label {self.object!r}"]
        told += [] if self.id is None else [f"id {self.id.hex()}"]
        return " and ".join(told) or "any label"


_QUERY = ("pin-source", "pin-value", "module-name", "module-path")
_FILES = ("pin-source", "module-name", "module-path")
_PATH = tuple(name for one in fields(Pkcs11Uri) if (name := one.name.replace("_", "-")) not in _QUERY)


def _attributes(text: str, separator: str, allowed: re.Pattern[str], known: tuple[str, ...]) -> dict[str, str]:
    """Take the path or the query apart; values are still percent-encoded."""
    is_path = separator == ";"
    found: dict[str, str] = {}
    for part in text.split(separator) if text else ():
        name, equals, value = part.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise ConfigurationError(f"the PKCS #11 URI needs name=value between each {separator!r}")
        if not allowed.fullmatch(value):
            raise ConfigurationError(f"the PKCS #11 URI's {name} has a character that must be percent-encoded")
        if name not in known:
            _unknown(name, is_path=is_path)
        elif name in found:
            raise ConfigurationError(f"the PKCS #11 URI has {name} twice")
        else:
            found[name] = value
    return found


def _unknown(name: str, *, is_path: bool) -> None:
    if name in _QUERY:
        raise ConfigurationError(f"the PKCS #11 URI has {name} in its path: it belongs behind the question mark")
    if is_path:
        raise ConfigurationError(f"the PKCS #11 URI's path has {name}, which is not known here: leave it out")
    if name in _PATH:
        raise ConfigurationError(f"the PKCS #11 URI has {name} in its query: it belongs before the question mark")


def _decoded(name: str, value: str) -> Any:  # noqa: ANN401 - each attribute has a type of its own
    raw = unquote_to_bytes(value)
    if name in ("id", "pin-value"):
        return raw
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"the PKCS #11 URI's {name} is not UTF-8") from None
    if name in _FILES and ("\0" in text or (name == "module-name" and "/" in text)):
        raise ConfigurationError(f"the PKCS #11 URI's {name} has a character that cannot be in it")
    if name == "slot-id":
        if not re.fullmatch("[0-9]{1,20}", text):
            raise ConfigurationError(f"the PKCS #11 URI's slot-id is {text!r}: it is a number")
        return int(text)
    if (name == "type" and text not in _TYPES) or (name == "library-version" and not _VERSION.fullmatch(text)):
        raise ConfigurationError(f"the PKCS #11 URI's {name} cannot be {text!r}")
    return text
