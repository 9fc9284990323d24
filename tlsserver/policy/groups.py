"""Groups of the key exchange, by name.

Facts
- X25519MLKEM768 keeps a recorded handshake closed to a quantum computer. OpenSSL has it from 3.5 on.
- A list of OpenSSL 3.5 may have classes, with slashes between them: a client that knows a group of an earlier class is
  asked for its share of it, at the price of a round trip, where it sent that of a later class only. In one class it is
  the shares that were sent that count.
- Our own X25519 (engine_shim.key_exchange) is inside X25519MLKEM768 as well.
- In TLS 1.2 the list says which curves the certificates of clients may have, too.

Decision
- X25519MLKEM768 in a class of its own, as OpenSSL has it; then X25519, P-256, P-384, which are Mozilla's; P-521 behind
  them where clients are asked for certificates.
- Groups that were named are set as they are named, slashes too; a name that OpenSSL does not know is an error.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from engine_shim import set_groups
from tlsserver.policy import names

if TYPE_CHECKING:
    from OpenSSL import SSL

    from tlsserver.policy.settings import ContextSettings

__all__ = ["DEFAULT_GROUPS", "apply", "known_groups"]

DEFAULT_GROUPS = ("X25519MLKEM768", "X25519", "P-256", "P-384")
_DEFAULT = "X25519MLKEM768/X25519:P-256:P-384"

_CANDIDATES = (
    *("X25519MLKEM768", "SecP256r1MLKEM768", "SecP384r1MLKEM1024", "curveSM2MLKEM768"),
    *("X25519", "P-256", "P-384", "P-521", "X448", "MLKEM512", "MLKEM768", "MLKEM1024"),
    *("brainpoolP256r1", "brainpoolP384r1", "brainpoolP512r1"),
    *("brainpoolP256r1tls13", "brainpoolP384r1tls13", "brainpoolP512r1tls13", "curveSM2"),
    *("ffdhe2048", "ffdhe3072", "ffdhe4096", "ffdhe6144", "ffdhe8192"),
)


def apply(context: SSL.Context, settings: ContextSettings) -> None:
    """Set the groups.

    Raises:
        ConfigurationError: A name is unknown; all that are, are named.
    """
    if settings.groups is None:
        last = ":P-521" if settings.client_certificates is not None else ""
        if not names.takes(set_groups, context, _DEFAULT + last):
            set_groups(context, ":".join(names.known(set_groups, context, DEFAULT_GROUPS)) + last)
        return
    text = names.text_of(settings.groups, "key exchange group")
    what, marks = "key exchange groups", "? * - /"
    names.set_known(set_groups, context, text, asked=_names(text), candidates=_CANDIDATES, what=what, marks=marks)


def known_groups(context: SSL.Context) -> list[str]:
    """Name the groups that a Context can take part in; those that it takes part in are others afterwards."""
    return names.known(set_groups, context, _CANDIDATES)


def _names(text: str) -> list[str]:
    """Names alone, without those that may be unknown (``?NAME``) and the marks of OpenSSL 3.5."""
    words = [word for word in re.split("[:/]", text) if "?" not in word[:3]]
    return [word.lstrip("*-") or word for word in words]
