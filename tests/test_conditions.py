"""Conditional and range requests for a file."""

from __future__ import annotations

import os
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest
from helpers_web import Reply, request_of

from tlsserver.site import files

if TYPE_CHECKING:
    from pathlib import Path

    from tlsserver.protocols.messages import Handler

MODIFIED = 1_700_000_000
DATE = formatdate(MODIFIED, usegmt=True)
BEFORE = formatdate(MODIFIED - 1, usegmt=True)
AFTER = formatdate(MODIFIED + 1, usegmt=True)


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> Handler:
    root: Path = tmp_path_factory.mktemp("www")
    for name, content in (("file.txt", "0123456789"), ("empty", "")):
        (root / name).write_text(content)
        os.utime(root / name, (MODIFIED, MODIFIED))
    return files.site(root)


def ask(handler: Handler, target: str = "/file.txt", *headers: str, method: str = "GET") -> Reply:
    return request_of(handler, target, *headers, method=method)


def etag_of(handler: Handler) -> str:
    return ask(handler).headers["etag"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["If-None-Match: {etag}"], 304),
        (['If-None-Match: "x", W/{etag}'], 304),
        (["If-None-Match: *"], 304),
        (['If-None-Match: "x"'], 200),
        (['If-None-Match: "x"', "If-Modified-Since: " + AFTER], 200),
        (["If-Modified-Since: " + DATE], 304),
        (["If-Modified-Since: " + AFTER], 304),
        (["If-Modified-Since: " + BEFORE], 200),
        (["If-Modified-Since: yesterday"], 200),
        (["If-Modified-Since: Mon, 99 Nov 99999 99:99:99 GMT"], 200),
        (["If-Match: {etag}"], 200),
        (["If-Match: *"], 200),
        (["If-Match: W/{etag}"], 412),
        (['If-Match: "x"'], 412),
        (["If-Unmodified-Since: " + DATE], 200),
        (["If-Unmodified-Since: " + BEFORE], 412),
    ],
)
def test_conditions(handler: Handler, headers: list[str], status: int) -> None:
    etag = etag_of(handler)
    reply = ask(handler, "/file.txt", *(line.format(etag=etag) for line in headers))
    assert reply.status == status
    if status == 304:
        assert (reply.body, reply.headers["etag"], reply.headers["last-modified"]) == (b"", etag, DATE)


@pytest.mark.parametrize(
    ("value", "body"),
    [
        ("bytes=0-3", b"0123"),
        ("bytes=3-", b"3456789"),
        ("bytes=-2", b"89"),
        ("bytes=-99", b"0123456789"),
        ("bytes=8-99", b"89"),
        ("Bytes= 9-9 ", b"9"),
        ("bytes=10-", None),
        ("bytes=99-100", None),
        ("bytes=-0", None),
    ],
)
def test_ranges(handler: Handler, value: str, body: bytes | None) -> None:
    reply = ask(handler, "/file.txt", "Range: " + value)
    if body is None:
        assert (reply.status, reply.headers["content-range"]) == (416, "bytes */10")
    else:
        start = b"0123456789".index(body)
        assert (reply.status, reply.body) == (206, body)
        assert reply.headers["content-range"] == f"bytes {start}-{start + len(body) - 1}/10"
        assert reply.headers["content-length"] == str(len(body))


@pytest.mark.parametrize(
    "value", ["bytes=0-1,3-4", "bytes=3-2", "bytes=-", "bytes=a-b", "lines=0-1", "bytes=+1-2", "0-1", "bytes=\u00b2-"]
)
def test_ranges_that_are_passed_over(handler: Handler, value: str) -> None:
    assert ask(handler, "/file.txt", "Range: " + value).status == 200


def test_a_range_of_nothing(handler: Handler) -> None:
    assert ask(handler, "/empty", "Range: bytes=0-").status == 416


def test_a_range_is_for_get_only(handler: Handler) -> None:
    assert ask(handler, "/file.txt", "Range: bytes=0-1", method="HEAD").headers["content-length"] == "10"


@pytest.mark.parametrize(
    ("condition", "status"),
    [("{etag}", 206), ("W/{etag}", 200), ('"x"', 200), (DATE, 206), (BEFORE, 200), (AFTER, 200), ("nonsense", 200)],
)
def test_if_range(handler: Handler, condition: str, status: int) -> None:
    condition = condition.format(etag=etag_of(handler))
    assert ask(handler, "/file.txt", "Range: bytes=0-3", "If-Range: " + condition).status == status


def test_a_condition_goes_before_a_range(handler: Handler) -> None:
    assert ask(handler, "/file.txt", "Range: bytes=99-", "If-None-Match: *").status == 304
