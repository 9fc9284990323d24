"""The files of a directory: what is sent, and what no request ever reaches."""

from __future__ import annotations

import os
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers_web import Reply, Wire, get, request_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tlsserver.protocols.http1 import Http1Protocol
from tlsserver.protocols.messages import DEFAULT_LIMITS, Handler, Request
from tlsserver.protocols.stream import CHUNK
from tlsserver.site import files, listing

if TYPE_CHECKING:
    from collections.abc import Iterator

MODIFIED = 1_700_000_000
DATE = formatdate(MODIFIED, usegmt=True)
BEFORE = formatdate(MODIFIED - 1, usegmt=True)
AFTER = formatdate(MODIFIED + 1, usegmt=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a secret beside it, and every way out of it that a file system knows."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret").write_text("SECRET")
    root = outside / "www"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "site").mkdir()
    (root / "folder.index" / "index.html").mkdir(parents=True)
    contents = {
        "file.txt": "0123456789",
        "sub/a b.html": "<p>",
        "site/index.html": "index",
        ".hidden": "SECRET",
        "sub/.hidden": "SECRET",
        "<b>&.txt": "x",
        "a:b.js": "x",
        "archive.svg.gz": "x",
        "unknown": "x",
        "empty": "",
    }
    for name, content in contents.items():
        (root / name).write_text(content)
        os.utime(root / name, (MODIFIED, MODIFIED))
    (Path(os.fsdecode(os.fsencode(root) + b"/\xff"))).write_text("bytes")
    links = {
        "inside": "sub/a b.html",
        "out": "../secret",
        "outdir": "..",
        "absolute": str(outside / "secret"),
        "etc": "/etc",
        "to-hidden": ".hidden",
        "loop": "loop",
        "nothing": "missing",
        "sub/back": "../file.txt",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "fifo")
    return root


@pytest.fixture(scope="module")
def handler(root: Path) -> Handler:
    return files.site(root)


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() == before


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def ask(handler: Handler, target: str = "/file.txt", *headers: str, method: str = "GET") -> Reply:
    return request_of(handler, target, *headers, method=method)


# What is sent.


def test_a_file(handler: Handler) -> None:
    reply = ask(handler)
    assert (reply.status, reply.body) == (200, b"0123456789")
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.headers["content-length"] == "10"
    assert reply.headers["last-modified"] == DATE
    assert reply.headers["accept-ranges"] == "bytes"
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_head_is_get_without_the_body(handler: Handler) -> None:
    head, whole = ask(handler, method="HEAD"), ask(handler)
    assert head.body == b""
    assert head.headers.items() - whole.headers.items() <= {("date", head.headers["date"])}


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/sub/a%20b.html", b"<p>"),
        ("//sub/./a%20b.html?query", b"<p>"),
        ("/site/", b"index"),
        ("/inside", b"<p>"),
        ("/sub/back", b"0123456789"),
        ("/%ff", b"bytes"),
        ("/empty", b""),
        ("http://host/file.txt", b"0123456789"),
    ],
)
def test_paths(handler: Handler, target: str, body: bytes) -> None:
    reply = ask(handler, target)
    assert (reply.status, reply.body) == (200, body)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("unknown", "application/octet-stream"),
        ("archive.svg.gz", "application/octet-stream"),
        ("a:b.js", "text/javascript; charset=utf-8"),
        ("site/", "text/html; charset=utf-8"),
    ],
)
def test_content_types(handler: Handler, name: str, kind: str) -> None:
    assert ask(handler, "/" + name).headers["content-type"].replace("application/j", "text/j") == kind


@pytest.mark.parametrize(
    "target",
    [
        *("/missing", "/file.txt/", "/file.txt/x", "/.hidden", "/sub/.hidden", "/sub/..", "/../secret", "/..%2fsecret"),
        *(
            "/%2e%2e/secret",
            "/sub/%2e%2e/file.txt",
            "/sub%2fa%20b.html",
            "/file.txt%00",
            "/%00",
            "/out",
            "/outdir/secret",
        ),
        *("/outdir/", "/absolute", "/etc/passwd", "/etc/", "/to-hidden", "/loop", "/nothing", "/fifo", "/" + "x" * 300),
        *("/" + "sub/" * 1500, "/..\\secret", "/%5c..%5csecret"),
    ],
)
def test_what_is_not_there_for_clients(handler: Handler, target: str) -> None:
    assert ask(handler, target).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"])
def test_other_methods_are_refused(handler: Handler, method: str) -> None:
    reply = ask(handler, method=method)
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/sub", "/sub/"),
        ("/sub/deep?a=b", "/sub/deep/?a=b"),
        ("//sub", "/sub/"),
        ("/%73ub", "/sub/"),
        ("/.", "/"),
        ("//host//../sub", None),
    ],
)
def test_a_directory_without_its_slash_is_redirected_on_this_host(handler: Handler, target: str, location: str) -> None:
    assert ask(handler, target).headers.get("location") == location


def test_a_file_that_may_not_be_read(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "open", refuse)
    assert ask(handler).status == 403


def test_a_directory_that_is_none(root: Path) -> None:
    for name in ("missing", "file.txt"):
        with pytest.raises(OSError, match=name):
            files.site(root / name)


# Lists.


def test_a_list_shows_what_can_be_asked_for(handler: Handler) -> None:
    reply = ask(handler, "/")
    page = reply.body.decode()
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    for seen in (
        '"./sub/"',
        '"./file.txt"',
        '"./inside"',
        '"./a%3Ab.js"',
        "&lt;b&gt;&amp;.txt",
        '"./%3Cb%3E%26.txt"',
        '"./%FF"',
    ):
        assert seen in page
    for unseen in (".hidden", "out", "etc", "absolute", "loop", "nothing", "<b>", "../"):
        assert f">{unseen}" not in page
    assert page.index("./sub/") < page.index("./empty")


def test_a_list_below_leads_up(handler: Handler) -> None:
    page = ask(handler, "/sub/").body.decode()
    assert '<a href="../">' in page
    assert "<title>/sub/</title>" in page


def test_a_directory_named_index_html_is_not_an_index(handler: Handler) -> None:
    assert b"./index.html/" in ask(handler, "/folder.index/").body


def test_a_long_list_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST_ENTRIES", 2)
    for name in "abc":
        (tmp_path / name).touch()
    page = ask(files.site(tmp_path), "/").body.decode()
    assert page.count("<tr><td>") == 2
    assert "Only 2 entries" in page


# Large files.


def test_a_large_file_is_read_as_fast_as_it_is_taken(tmp_path: Path) -> None:
    data = os.urandom(CHUNK * 8 + 1)
    (tmp_path / "large").write_bytes(data)
    wire = Wire(Http1Protocol(files.site(tmp_path)), room=0).feed(get("/large"))
    most = 0
    while taken := wire.transport.drain():
        most = max(most, taken)
        wire.settle()
    assert wire.reply().body == data
    assert most < 2 * CHUNK


def test_a_file_that_shrinks_while_it_is_sent_aborts_the_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "large").write_bytes(b"x" * CHUNK * 4)
    wire = Wire(Http1Protocol(files.site(tmp_path)), room=0).feed(get("/large"))
    os.truncate(tmp_path / "large", CHUNK)
    while wire.transport.drain() and not wire.transport.closed:
        wire.settle()
    assert wire.transport.aborted
    assert "FileShrankError" in caplog.text


def test_a_client_that_leaves_closes_the_file(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * CHUNK * 4)
    Wire(Http1Protocol(files.site(tmp_path)), room=0).feed(get("/large")).lose()


def test_a_link_put_in_place_between_the_check_and_the_opening(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = files.site(root)
    monkeypatch.setattr(os.path, "realpath", lambda path, **_: str(path))
    for target in ("/out", "/outdir/secret", "/absolute"):
        assert ask(handler, target).status == 404


# No request reaches a file outside.

names = st.sampled_from(
    [
        *(
            "",
            ".",
            "..",
            "...",
            "sub",
            "site",
            "file.txt",
            "out",
            "outdir",
            "etc",
            "passwd",
            "secret",
            ".hidden",
            "www",
        ),
        *(
            "%2e",
            "%2e%2e",
            ".%2e",
            "%2f",
            "%2f..",
            "..%2fsecret",
            "%00",
            "secret%00",
            "%5c",
            "%ff",
            "%c0%ae%c0%ae",
            "%",
        ),
        *("%252e%252e", "a%20b.html", "absolute", "to-hidden", "loop", "back", "fifo", "deep", "proc", "self", "root"),
    ]
)
targets = st.one_of(
    st.lists(names, max_size=8).map(lambda parts: "/" + "/".join(parts)),
    st.lists(names, max_size=8).map(lambda parts: "http://host/" + "/".join(parts)),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40).map("/".__add__),
)


@given(targets, st.sampled_from(["GET", "HEAD"]))
@example("/outdir/www/../secret", "GET")
@settings(max_examples=500, deadline=None)
def test_no_target_reaches_what_is_outside_or_hidden(root: Path, handler: Handler, target: str, method: str) -> None:
    request = Request(method, target, (), b"", Wire(Http1Protocol(handler, DEFAULT_LIMITS)).transport)
    response = handler(request)
    assert response.status in {200, 301, 404}
    if isinstance(response.body, files.FileBody):
        opened = Path(f"/proc/self/fd/{response.body._fd}").readlink()
        inside = opened.relative_to(root).parts
        assert not any(part.startswith(".") for part in inside)
        assert b"SECRET" not in b"".join(response.body)
        response.body.close()
    else:
        assert isinstance(response.body, bytes)
        assert b"secret" not in response.body
    for name, value in response.headers:
        assert name != "Location" or (value.startswith("/") and not value.startswith("//"))
