"""The page that lists a directory."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from html import escape
from itertools import islice
from string import Template
from typing import TYPE_CHECKING
from urllib.parse import quote

from tlsserver.protocols.messages import Response
from tlsserver.site import assets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOST_ENTRIES = 2000
"""Entries that are looked at: each costs a system call or two on the loop's thread, so this is a few milliseconds."""

_STYLE = assets.text("listing.css")
_PAGE = Template(assets.text("listing.html"))
_POLICY = f"default-src 'none'; style-src {assets.csp_hash(_STYLE)}; img-src data:; frame-ancestors 'none'"
_HEADERS = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy", _POLICY),
    ("Cache-Control", "no-cache"),
    ("X-Content-Type-Options", "nosniff"),
)


def page(fd: int, directory: Path, root: Path, title: str) -> Response:
    """Return the list of what can be asked for in a directory: no dot files, no links that leave `root`.

    Args:
        fd: The directory, open for reading.
        directory: Its real path, without links.
        root: The directory that is served, real as well.
        title: The path as the client knows it.

    Raises:
        OSError: The directory cannot be read.
    """
    with os.scandir(fd) as entries:
        rows = sorted(row for entry in islice(entries, MOST_ENTRIES) for row in _row(entry, directory, root))
        is_cut = next(entries, None) is not None
    if directory != root:
        rows.insert(0, (0, "", '<tr><td><a href="../">../</a><td><td>'))
    note = f"<p>Only {MOST_ENTRIES} entries are shown.</p>" if is_cut else ""
    html = _PAGE.substitute(title=_text(title), style=_STYLE, rows="\n".join(row[-1] for row in rows), note=note)
    return Response(200, _HEADERS, html.encode())


def _row(entry: os.DirEntry[str], directory: Path, root: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the entry's row behind its sort keys, or nothing if it is not to be seen."""
    if entry.name.startswith("."):
        return
    try:
        if entry.is_symlink() and not directory.joinpath(entry.name).resolve(strict=True).is_relative_to(root):
            return
        status, is_directory = entry.stat(), entry.is_dir()
    except (OSError, RuntimeError):  # gone meanwhile, or a link to nothing or to itself
        return
    name = entry.name + "/" * is_directory
    href = "./" + quote(os.fsencode(name))  # "./" because a name with a colon would be read as a scheme
    size = "" if is_directory else f"{status.st_size:,}"
    changed = datetime.fromtimestamp(status.st_mtime, timezone.utc)
    yield (
        not is_directory,
        name,
        f'<tr><td><a href="{href}">{_text(name)}</a><td>{size}<td><time>{changed:%Y-%m-%d %H:%M}</time>',
    )


def _text(name: str) -> str:
    """Return `name` for HTML; bytes that are no text become replacement characters."""
    return escape(os.fsencode(name).decode(errors="replace"))
