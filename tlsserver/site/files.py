"""The files of a directory, for GET and HEAD.

What keeps a request inside the directory:

- A path is split at its slashes before it is decoded, so an encoded slash or NUL stays in one name, which no file has.
  A name that starts with a dot ("..", hidden files) does not exist for clients, nor does a link that leads to one.
- Links are resolved first; a target outside the directory is refused. Then the resolved path is opened name by name,
  each relative to the directory before it and with O_NOFOLLOW, so a link that is put there in between is not followed.

Files are read on the loop's thread, a piece at a time, as fast as the client takes them.
"""

from __future__ import annotations

import errno
import mimetypes
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

from tlsserver.protocols.messages import Response
from tlsserver.protocols.stream import CHUNK
from tlsserver.site import conditions, listing

if TYPE_CHECKING:
    from tlsserver.protocols.messages import Handler, Request

_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # NONBLOCK: a FIFO must not hold us
_TEXT = frozenset({"application/javascript", "application/json", "application/xml", "image/svg+xml"})


class FileShrankError(OSError):
    """A file became shorter while it was sent; the response cannot be completed."""


def site(directory: Path) -> Handler:
    """Return a handler that serves `directory`.

    Raises:
        OSError: It does not exist, or is no directory that can be entered.
    """
    root = Path(os.path.realpath(directory, strict=True))
    os.close(os.open(root, _STEP))
    return partial(_answer, root)


@dataclass(frozen=True)
class _Opened:
    """A file or directory that is open: its real path, descriptor and status."""

    path: Path
    fd: int
    status: os.stat_result

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


class FileBody:
    """Some bytes of an open file, pulled piece by piece. Owns the descriptor."""

    def __init__(self, fd: int, span: range) -> None:
        self._fd = fd
        self._at = span.start
        self._stop = span.stop

    def __iter__(self) -> FileBody:
        return self

    def __next__(self) -> bytes:
        if self._at >= self._stop:
            raise StopIteration
        piece = os.pread(self._fd, min(CHUNK, self._stop - self._at), self._at)
        if not piece:
            raise FileShrankError("the file became shorter while it was sent")
        self._at += len(piece)
        return piece

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def _answer(root: Path, request: Request) -> Response:
    if request.method not in {"GET", "HEAD"}:
        return Response.plain(405, (("Allow", "GET, HEAD"),))
    parts = _parts(request.raw_path)
    if parts is None:
        return Response.plain(404)
    try:
        return _serve(root, parts, request)
    except PermissionError:
        return Response.plain(403)
    except (FileNotFoundError, NotADirectoryError):
        return Response.plain(404)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENAMETOOLONG}:
            return Response.plain(404)
        raise


def _parts(raw_path: str) -> tuple[str, ...] | None:
    """Return the names along the path, None if one of them cannot be a file's that clients may see."""
    decoded = [unquote_to_bytes(part) for part in raw_path.split("/") if part not in {"", "."}]
    if any(part.startswith(b".") or b"/" in part or b"\0" in part for part in decoded):
        return None
    return tuple(map(os.fsdecode, decoded))


def _serve(root: Path, parts: tuple[str, ...], request: Request) -> Response:
    opened = _open(root, parts)
    if not opened.is_directory:
        if request.raw_path.endswith("/"):
            os.close(opened.fd)
            return Response.plain(404)
        return _file(opened, parts[-1], request)
    try:
        return _directory(opened, root, parts, request)
    finally:
        os.close(opened.fd)


def _directory(opened: _Opened, root: Path, parts: tuple[str, ...], request: Request) -> Response:
    """Answer with the directory's index.html, else with its list."""
    if not request.raw_path.endswith("/"):
        return _redirect(parts, request.query)
    with suppress(FileNotFoundError):
        index = _open(root, (*parts, "index.html"))
        if not index.is_directory:
            return _file(index, "index.html", request)
        os.close(index.fd)
    return listing.page(opened.fd, opened.path, root, "/" + "".join(part + "/" for part in parts))


def _redirect(parts: tuple[str, ...], query: str) -> Response:
    """Add the slash. The path is put together anew: "//host" taken over as it came would lead to another host."""
    location = "/" + "".join(quote(os.fsencode(part)) + "/" for part in parts) + ("?" + query if query else "")
    return Response.plain(301, (("Location", location),))


def _file(opened: _Opened, name: str, request: Request) -> Response:
    """Answer with the file or part of it. The response owns the descriptor, or it is closed here."""
    version = conditions.Version.of(opened.status)
    headers = (*version.headers, ("Accept-Ranges", "bytes"), ("Cache-Control", "no-cache"))
    headers += (("X-Content-Type-Options", "nosniff"),)
    span = conditions.byte_range(request, version)
    refusal = conditions.refusal(request, version)
    if refusal is None and span is not None and not span:
        refusal = 416
    if refusal is not None:
        os.close(opened.fd)
        return _refused(refusal, version, headers)
    status = 200 if span is None else 206
    if span is not None:
        headers += (("Content-Range", f"bytes {span.start}-{span.stop - 1}/{version.size}"),)
    span = range(version.size) if span is None else span
    headers += (("Content-Type", _content_type(name)), ("Content-Length", str(len(span))))
    return Response(status, headers, FileBody(opened.fd, span))


def _refused(status: int, version: conditions.Version, headers: tuple[tuple[str, str], ...]) -> Response:
    if status == 304:  # noqa: PLR2004 - the one without a text
        return Response(304, headers)
    return Response.plain(status, (("Content-Range", f"bytes */{version.size}"),) if status == 416 else ())  # noqa: PLR2004


def _content_type(name: str) -> str:
    kind, encoding = mimetypes.guess_type(name)
    if kind is None or encoding is not None:  # page.html.gz is an archive to download, not a page
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") or kind in _TEXT else kind


def _open(root: Path, parts: tuple[str, ...]) -> _Opened:
    """Open what `parts` leads to.

    Raises:
        FileNotFoundError: There is nothing that may be seen, or it is neither file nor directory.
        OSError: It cannot be opened.
    """
    path = Path(os.path.realpath(root.joinpath(*parts), strict=True))
    if not path.is_relative_to(root):
        raise FileNotFoundError(path)
    inside = path.relative_to(root).parts
    if any(part.startswith(".") for part in inside):
        raise FileNotFoundError(path)
    fd = _open_beneath(root, inside)
    status = os.fstat(fd)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        os.close(fd)
        raise FileNotFoundError(path)
    return _Opened(path, fd, status)


def _open_beneath(root: Path, parts: tuple[str, ...]) -> int:
    *folders, last = parts or (".",)
    fd = os.open(root, _STEP)
    for name, flags in [*((folder, _STEP) for folder in folders), (last, _OPEN)]:
        try:
            inner = os.open(name, flags, dir_fd=fd)
        finally:
            os.close(fd)
        fd = inner
    return fd
