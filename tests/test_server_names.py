"""Names as C looks them up, and what a ClientHello asks: `csrc/hello.c`, `names.c`, `identities.c`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from engine_shim import Status, set_groups
from engine_shim.identity import Identity
from engine_shim.server_names import BadNameError, NameTable, Question, QuestionKind, refusal_of
from support.pair import Pair, client_context, server_context

if TYPE_CHECKING:
    from support.certificates import Certificates

UNRECOGNIZED_NAME, ILLEGAL_PARAMETER, ACCESS_DENIED = 112, 47, 49


def table_of(names: dict[str, int]) -> NameTable:
    return NameTable(SSL.Context(SSL.TLS_SERVER_METHOD), names, identities=1, loaded_most=1)


@pytest.mark.parametrize(
    ("asked", "number"),
    [
        ("example.com", 1),
        ("EXAMPLE.com.", 1),
        ("example.com..", None),
        ("www.example.com", 2),
        ("www.shop.example.com", None),
        ("mail.example.com", 3),
        ("*.example.com", None),
        ("xn--bcher-kva.example.com", 2),
        ("_dmarc.example.com", 2),
        (".example.com", None),
        ("com", None),
        ("localhost", 4),
        ("", None),
        (".", None),
        ("127.0.0.1", None),
        ("10.1", None),
        ("::1", None),
        ("[::1]", None),
        ("-a.example.com", None),
        ("a b.example.com", None),
        ("a/b.example.com", None),
        ("büch.example.com", None),
        ("a" * 63 + ".example.com", 2),
        ("a" * 64 + ".example.com", None),
        (".".join(["a" * 49] * 5) + ".example.com", None),
        ("example.com\0.evil.org", None),
    ],
)
def test_names(asked: str, number: int | None) -> None:
    table = table_of({"Example.COM": 1, "*.example.com": 2, "mail.example.com.": 3, "localhost": 4})
    assert table.number_of(asked) == number


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "*", "*.", "**.example.com", "f*.example.com", "a.*.com", "10.0.0.1", "*.1", "::1", "a..b"),
        *("a\nb", "ü.com", "a" * 64, "a." * 127 + "a"),
    ],
)
def test_no_names(name: str) -> None:
    with pytest.raises(BadNameError) as caught:
        table_of({"good.example": 1, name: 2})
    assert caught.value.name == name


HOSTS = st.lists(st.sampled_from(["a", "b", "cc", "x-1", "*"]), min_size=1, max_size=4).map(".".join)


@given(names=st.dictionaries(HOSTS, st.integers(1, 9), max_size=20), asked=HOSTS)
def test_as_a_dictionary_would(names: dict[str, int], asked: str) -> None:
    """Python's own dictionary is the model."""
    names = {name: number for name, number in names.items() if "*" not in name.removeprefix("*.")}
    expected = None if "*" in asked else names.get(asked, names.get("*." + asked.partition(".")[2]))
    assert table_of(names).number_of(asked) == expected


def test_a_hundred_thousand_names() -> None:
    """Looked up as fast as ten, within what one machine's noise allows; 35 bytes a name beside its own."""
    many = {f"host-{number}.example.com": number + 1 for number in range(100_000)}
    table, small = table_of(many), table_of({"host-5.example.com": 6})
    assert table.number_of("host-99999.example.com") == 100_000
    assert table.table_bytes < 100_000 * 60
    assert fastest(table, list(many)[::100]) < 10 * fastest(small, ["host-5.example.com"] * 1000)


def fastest(table: NameTable, names: list[str]) -> float:
    """The best of five rounds, in seconds."""
    rounds = []
    for _ in range(5):
        begun = time.perf_counter()
        for name in names:
            table.number_of(name)
        rounds.append(time.perf_counter() - begun)
    return min(rounds)


def test_those_who_are_asked_for_stay(certificates: Certificates) -> None:
    """At most three are loaded; whoever was used since the hand came by is spared."""
    table, identity, context = clock(certificates)
    for number in (1, 2, 3, 4):
        table.put(number, identity)
    assert table.loaded == 3
    assert wants(context, certificates, "h4") is QuestionKind.NOTHING
    assert wants(context, certificates, "h1") is QuestionKind.IDENTITY
    assert wants(context, certificates, "h3") is QuestionKind.NOTHING
    table.put(5, identity)  # the hand is at 2, which nobody has asked for since it came by
    assert wants(context, certificates, "h2") is QuestionKind.IDENTITY
    assert wants(context, certificates, "h3") is QuestionKind.NOTHING
    table.put(3, identity)
    assert table.loaded == 3
    table.put(77, identity)  # no such number
    assert table.loaded == 3


def clock(certificates: Certificates) -> tuple[NameTable, Identity, SSL.Context]:
    files = certificates["p256"]
    context = server_context(files, None)
    table = NameTable(context, {f"h{number}": number for number in range(1, 6)}, identities=6, loaded_most=3)
    identity = Identity()
    identity.add(files.cert.read_bytes(), files.key)
    return table, identity, context


def wants(context: SSL.Context, certificates: Certificates, name: str) -> QuestionKind:
    """Begin a handshake with this name, and tell what it wants to know."""
    with Pair(context, client_context(certificates["p256"])) as pair:
        pair.client.set_tlsext_host_name(name.encode())
        pair.until_parked()
        return Question(pair.server).kind


def asking(certificates: Certificates, version: str = "1.3", **options: bool) -> Pair:
    context = server_context(certificates["p256"], None)
    NameTable(context, {}, identities=1, loaded_most=1, asks=True, **options)
    pair = Pair(context, client_context(certificates["p256"], version))
    pair.client.set_tlsext_host_name(b"Some.Name")
    return pair


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_what_the_client_said(certificates: Certificates, version: str) -> None:
    with asking(certificates, version) as pair:
        assert pair.until_parked() is Status.WANT_CLIENT_HELLO_CB
        question = Question(pair.server)
        texts = question.texts()
        assert (question.kind, texts.name, texts.legacy_version) == (QuestionKind.DECISION, b"Some.Name", b"\x03\x03")
        assert (b"\x03\x04" in texts.versions) is (version == "1.3")
        assert len(texts.ciphers) >= 2
        assert texts.groups
        assert texts.signature_algorithms
        # Nothing has changed: the same question once more.
        assert pair.server.handshake() is Status.WANT_CLIENT_HELLO_CB
        assert not pair.server.paused
        assert question.give(None)
        assert not question.give(None)
        assert not question.refuse(ACCESS_DENIED)
        assert pair.finish() is Status.DONE
        assert not question.give(None)
        assert refusal_of(pair.server) is None


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_refused(certificates: Certificates, version: str) -> None:
    with asking(certificates, version) as pair:
        pair.until_parked()
        assert Question(pair.server).refuse(ACCESS_DENIED)
        assert pair.server.handshake() is Status.ERROR
        assert refusal_of(pair.server) == (ACCESS_DENIED, False)
        pair.step_client()
        assert "access denied" in str(pair.client_error)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_strict(certificates: Certificates, version: str) -> None:
    context = server_context(certificates["p256"], None)
    NameTable(context, {"known": 0}, identities=1, loaded_most=1, strict=True)
    for name, status in ((b"known", Status.DONE), (b"unknown", Status.ERROR), (None, Status.DONE)):
        with Pair(context, client_context(certificates["p256"], version)) as pair:
            if name is not None:
                pair.client.set_tlsext_host_name(name)
            assert pair.until_parked() is status
            expected = (UNRECOGNIZED_NAME, True) if status is Status.ERROR else None
            assert refusal_of(pair.server) == expected


def test_asked_once_although_the_client_says_hello_twice(certificates: Certificates) -> None:
    """The client's key share is of a group that the server does not take: HelloRetryRequest."""
    context = server_context(certificates["p256"], None)
    NameTable(context, {}, identities=1, loaded_most=1, asks=True)
    set_groups(context, "P-384")
    with Pair(context, client_context(certificates["p256"], "1.3")) as pair:
        pair.client.set_tlsext_host_name(b"some.name")
        assert pair.until_parked() is Status.WANT_CLIENT_HELLO_CB
        Question(pair.server).give(None)
        assert pair.finish() is Status.DONE
        assert "384" in str(pair.server.group)


def test_the_second_hello_names_whom_the_first_one_named(certificates: Certificates) -> None:
    context = server_context(certificates["p256"], None)
    NameTable(context, {"one.name": 0, "other.name": 0}, identities=1, loaded_most=1)
    set_groups(context, "P-384")
    with Pair(context, client_context(certificates["p256"], "1.3")) as pair:
        pair.client.set_tlsext_host_name(b"one.name")
        pair.step_client()
        assert pair.server.handshake() is Status.WANT_READ
        pair.client.set_tlsext_host_name(b"other.name")
        assert pair.until_parked() is Status.ERROR
        assert refusal_of(pair.server) == (ILLEGAL_PARAMETER, False)
