"""Why a linkage was not used, and what to do: a leaf that all others of this package raise."""

from __future__ import annotations

from typing import Literal, NamedTuple

# What to do. Each is one clause of one line, without a full stop.
USE_SHARED_OPENSSL = (
    "install a cryptography that uses a shared OpenSSL 3.0 or newer: "
    "`pip install --no-binary cryptography cryptography`, or the distribution's python3-openssl"
)
RESTART = "restart this process, so that it runs the files that are installed now"
NEWER_OPENSSL = "update cryptography (or the distribution's OpenSSL): OpenSSL 3.0 or newer is needed"
MOUNT_PROC = "mount /proc and let this process read its own files there"
REPORT = "please report this, with the output of `tlsserver doctor`"


class Refused(Exception):  # noqa: N818 - it is no error yet: the other linkage may do
    """This linkage cannot be used in this process.

    Args:
        reason: What is not as it has to be: one clause, without a full stop.
        advice: What the user can do about it: one clause.
    """

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.advice = advice


class Verdict(NamedTuple):
    """What became of one linkage, for ``tlsserver doctor``.

    Attributes:
        linkage: "shared" or "static".
        verdict: Whether it is in use.
        reason: Why (not).
        advice: What to do; empty where nothing has to be done.
    """

    linkage: str
    verdict: Literal["used", "refused", "not tried"]
    reason: str
    advice: str
