"""Conditional and range requests for a file (RFC 9110, sections 13 and 14), without the file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timezone
from email.utils import formatdate, parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import stat_result

    from tlsserver.protocols.messages import Request

_ETAG = re.compile(r'(?:W/)?"[^"]*"')
_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Version:
    """What tells one version of a file from another.

    Attributes:
        etag: A strong validator: modification time in nanoseconds, and size.
        modified: Modification time, in whole seconds since 1970, as HTTP dates have it.
        size: Bytes.
    """

    etag: str
    modified: int
    size: int

    @classmethod
    def of(cls, status: stat_result) -> Version:
        """Return the version of the file that has this status."""
        return cls(f'"{status.st_mtime_ns:x}-{status.st_size:x}"', int(status.st_mtime), status.st_size)

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers that name this version."""
        return (("ETag", self.etag), ("Last-Modified", formatdate(self.modified, usegmt=True)))


def refusal(request: Request, version: Version) -> int | None:
    """Return 304 or 412 if a condition of the request says so, in the order of RFC 9110 section 13.2.2; else None."""
    if (wanted := request.header("if-match")) is not None:
        if not _matches(wanted, version.etag, weakly=False):
            return 412
    elif (date := _date(request, "if-unmodified-since")) is not None and version.modified > date:
        return 412
    if (known := request.header("if-none-match")) is not None:
        return 304 if _matches(known, version.etag, weakly=True) else None
    date = _date(request, "if-modified-since")
    return 304 if date is not None and version.modified <= date else None


def byte_range(request: Request, version: Version) -> range | None:
    """Return the bytes that are asked for.

    Returns:
        None for the whole file: there is no range, or one that is malformed, of another unit or for another version
        (If-Range), or there are several (a server may send the whole). An empty range if it cannot be satisfied.
    """
    match = _RANGE.fullmatch(request.header("range") or "")
    if request.method != "GET" or match is None or not _is_current(request, version):
        return None
    first, last = match.groups()
    if not first:
        return range(max(0, version.size - int(last)), version.size) if last else None
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, version.size) if last else version.size)


def _is_current(request: Request, version: Version) -> bool:
    condition = request.header("if-range")
    if condition is None or condition == version.etag:
        return True
    return _date(request, "if-range") == version.modified


def _matches(header: str, etag: str, *, weakly: bool) -> bool:
    if header.strip() == "*":
        return True
    etags = _ETAG.findall(header)
    return etag in ([found.removeprefix("W/") for found in etags] if weakly else etags)


def _date(request: Request, name: str) -> int | None:
    """Return the header's HTTP date in seconds since 1970; None if there is none that can be read."""
    try:
        date = parsedate_to_datetime(request.header(name) or "")
    except (ValueError, TypeError, OverflowError):
        return None
    return int((date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp())
