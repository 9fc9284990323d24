"""What a context negotiates: profiles, suites, groups, signature algorithms, tickets and sessions, seen by clients."""

from __future__ import annotations

import contextlib
import ctypes
import re
from typing import TYPE_CHECKING, Any

import pytest
from OpenSSL import SSL

from engine_shim import Status
from engine_shim.handshake_policy import set_ciphersuites, set_signature_algorithms
from support.ahead import address, used
from support.certificates import ML_DSA
from support.groups import openssl_function, set_groups
from support.pair import Pair, client_context
from support.python_client import PythonPair, python_context
from tlsserver import ConfigurationError, TLSContext
from tlsserver.policy import profiles, suites

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Certificates, Identity

SESS_NUMBER = 20  # SSL_CTRL_SESS_NUMBER, SSL_CTX_sess_number(3)
HYBRID = "X25519MLKEM768"
# As OpenSSL names what was negotiated, before 3.2 and after.
NAMES = {
    HYBRID: {HYBRID},
    "X25519": {"x25519", "X25519"},
    "P-256": {"secp256r1", "prime256v1"},
    "P-384": {"secp384r1"},
}


@pytest.fixture(autouse=True)
def nothing_on_the_queue() -> Iterator[None]:
    """No setting, taken or refused, leaves an error behind: a later handshake would take it for its own."""
    yield
    assert openssl_function("ERR_peek_error", ctypes.c_ulong)() == 0


def make(identity: Identity, **options: Any) -> SSL.Context:
    return TLSContext(identity.cert, identity.key, **options).pyopenssl


def settled(server: SSL.Context, client: SSL.Context) -> tuple[str, str, str | None] | None:
    """Version, suite and group of a handshake; None: it failed."""
    with Pair(server, client, offloaded=False) as pair:
        if pair.until_parked() is not Status.DONE:
            return None
        name = pair.client.get_cipher_name()
        assert name is not None
        return pair.client.get_protocol_version_name(), name, pair.server.group


def has_hybrid() -> bool:
    return set_groups(SSL.Context(SSL.TLS_CLIENT_METHOD), HYBRID)


# --- Profiles ---


def test_profiles_differ_in_their_least_version(identity: Identity) -> None:
    old = client_context(identity, "1.2")
    assert settled(make(identity), old)
    assert settled(make(identity, profile="modern"), old) is None
    assert settled(make(identity, profile="modern"), client_context(identity))


def test_an_option_goes_before_the_profile(identity: Identity) -> None:
    server = make(identity, profile="modern", min_version="1.2", max_version="1.2")
    found = settled(server, client_context(identity))
    assert found is not None
    assert found[0] == "TLSv1.2"
    assert found[1] in profiles.INTERMEDIATE_CIPHERS
    assert settled(make(identity, min_version="1.3"), client_context(identity, "1.2")) is None


@pytest.mark.parametrize("suite", profiles.INTERMEDIATE_CIPHERS.split(":"))
def test_intermediate_offers_each_of_its_suites(certificates: Certificates, suite: str) -> None:
    identity = certificates["p256" if "ECDSA" in suite else "rsa2048"]
    found = settled(make(identity), client_context(identity, "1.2", suite))
    assert found is not None
    assert found[1] == suite


@pytest.mark.parametrize(
    "suite", ["AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA256", "DHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-SHA"]
)
def test_intermediate_offers_no_others(certificates: Certificates, suite: str) -> None:
    identity = certificates["rsa2048"]
    assert settled(make(identity), client_context(identity, "1.2", suite)) is None


@pytest.mark.parametrize("first", ["ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES256-GCM-SHA384"])
def test_the_clients_order_decides(identity: Identity, first: str) -> None:
    client = client_context(identity, "1.2", f"{first}:ECDHE-ECDSA-AES128-GCM-SHA256")
    found = settled(make(identity), client)
    assert found is not None
    assert found[1] == first


# --- Suites of TLS 1.3 ---


@pytest.mark.parametrize("form", ["TLS_CHACHA20_POLY1305_SHA256", ("TLS_CHACHA20_POLY1305_SHA256",)])
def test_ciphersuites(identity: Identity, form: str | tuple[str, ...]) -> None:
    found = settled(make(identity, ciphersuites=form), client_context(identity, "1.3"))
    assert found is not None
    assert found[1] == "TLS_CHACHA20_POLY1305_SHA256"


@pytest.mark.parametrize("suite", suites.known_ciphersuites())
def test_only_three_by_default(identity: Identity, suite: str) -> None:
    client = client_context(identity, "1.3")
    set_ciphersuites(client, suite)
    assert bool(settled(make(identity), client)) is ("CCM" not in suite)


# --- Groups ---


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_each_group_of_the_default(identity: Identity, name: str, ahead: bool) -> None:
    client = client_context(identity, "1.3")
    if not set_groups(client, name):
        pytest.skip(f"this OpenSSL has no {name}")
    found = settled(make(identity, key_exchange_ahead=ahead), client)
    assert found is not None
    assert found[2] in NAMES[name]


@pytest.mark.parametrize("name", ["P-521", "X448", "ffdhe2048"])
def test_others_are_not_in_the_default(identity: Identity, name: str) -> None:
    client = client_context(identity, "1.3")
    assert set_groups(client, name)
    assert settled(make(identity), client) is None
    assert settled(make(identity, groups=[name]), client)


def test_who_knows_the_hybrid_is_asked_for_it(identity: Identity) -> None:
    """Also with a share of X25519 alone, as with OpenSSL's own default."""
    if not has_hybrid():
        pytest.skip(f"this OpenSSL has no {HYBRID}")
    client = client_context(identity, "1.3")
    assert set_groups(client, "*X25519", HYBRID)
    found = settled(make(identity), client)
    assert found is not None
    assert found[2] == HYBRID
    found = settled(make(identity, groups=(HYBRID, "X25519")), client)
    assert found is not None
    assert found[2] == "x25519", "in one class, the share that was sent counts"


def test_pairs_made_ahead_are_used_with_the_default_and_with_named_groups(identity: Identity) -> None:
    client = client_context(identity, "1.3")
    assert set_groups(client, "X25519")
    before = used()
    assert settled(make(identity), client)
    made = used() - before
    assert settled(make(identity, groups="P-256,X25519"), client)
    assert used() - before == 2 * made


@pytest.mark.parametrize("kind", ["p521", "p384", "ed25519", "rsa2048"])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_the_groups_do_not_forbid_a_certificate(certificates: Certificates, kind: str, version: str) -> None:
    identity = certificates[kind]
    assert settled(make(identity), client_context(identity, version))


# --- Signature algorithms ---


def signature(server: SSL.Context, identity: Identity, offered: str) -> bool:
    client = client_context(identity, "1.3")
    set_signature_algorithms(client, offered)
    return settled(server, client) is not None


def test_signature_algorithms(certificates: Certificates) -> None:
    identity = certificates["rsa2048"]
    server = make(identity, signature_algorithms=["rsa_pss_rsae_sha384"])
    # The certificate of the tests is signed with ECDSA and SHA-256.
    assert signature(server, identity, "rsa_pss_rsae_sha384:ecdsa_secp256r1_sha256")
    assert not signature(server, identity, "rsa_pss_rsae_sha256:ecdsa_secp256r1_sha256")


@pytest.mark.parametrize("kind", list(ML_DSA))
def test_ml_dsa_by_default(certificates: Certificates, kind: str) -> None:
    identity = certificates[kind]
    assert settled(make(identity), client_context(identity, "1.3"))


# --- Tickets and sessions ---


def tickets(server: SSL.Context, identity: Identity, version: str) -> tuple[int, int | None]:
    """How many tickets a client is given, and the lifetime that they tell."""
    messages: list[Any] = []
    client = python_context(identity, version)
    client._msg_callback = lambda *told: messages.append(told[4])  # type: ignore[attr-defined]
    with PythonPair(server, client) as pair:
        pair.finish()
        session = pair.client.session
        return [one.name for one in messages].count("NEWSESSION_TICKET"), session and session.ticket_lifetime_hint


@pytest.mark.parametrize("count", [0, 1, 2, 32])
def test_number_of_tickets(identity: Identity, count: int) -> None:
    assert tickets(make(identity, num_tickets=count), identity, "1.3")[0] == count
    assert tickets(make(identity, num_tickets=count), identity, "1.2")[0] == 1, "the setting is for TLS 1.3"


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_lifetime_of_sessions(identity: Identity, version: str) -> None:
    assert tickets(make(identity), identity, version)[1] == 7200
    assert tickets(make(identity, session_lifetime=600), identity, version)[1] == 600


def test_two_tickets_by_default(identity: Identity) -> None:
    assert tickets(make(identity), identity, "1.3")[0] == 2


def resumed(server: SSL.Context, identity: Identity, version: str, *, with_tickets: bool) -> bool:
    client = client_context(identity, version)
    if not with_tickets:
        client.set_options(SSL.OP_NO_TICKET)
    with Pair(server, client, offloaded=False) as pair:
        assert pair.finish() is Status.DONE
        pair.echo()
        session = pair.client.get_session()
        assert session is not None
        with Pair(server, client, offloaded=False) as again:  # the first one is open: else its session is forgotten
            again.client.set_session(session)
            assert again.finish() is Status.DONE
            return again.server.reused


def test_sessions_in_memory_and_none(identity: Identity) -> None:
    assert resumed(make(identity), identity, "1.2", with_tickets=False)
    none = make(identity, session_cache_size=0)
    assert not resumed(none, identity, "1.2", with_tickets=False)
    for version in ("1.2", "1.3"):
        assert resumed(none, identity, version, with_tickets=True), "tickets need no memory"


def test_sessions_in_memory_are_bounded(identity: Identity) -> None:
    server, client = make(identity, session_cache_size=3), client_context(identity, "1.2")
    client.set_options(SSL.OP_NO_TICKET)
    with contextlib.ExitStack() as stack:
        pairs = [stack.enter_context(Pair(server, client, offloaded=False)) for _ in range(6)]
        assert {pair.finish() for pair in pairs} == {Status.DONE}
        control = openssl_function(
            "SSL_CTX_ctrl", ctypes.c_long, ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p
        )
        assert control(address(server), SESS_NUMBER, 0, None) == 3


# --- What cannot work ---


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"profile": "old"}, "TLS profile 'old' is not known: choose from intermediate, modern"),
        ({"profile": "modern", "max_version": "1.2"}, r"no version of TLS is left: .* 1\.2, the least 1\.3 \(profile"),
        ({"min_version": "1.3", "max_version": "1.2"}, r"no version of TLS is left: .* is 1\.2, the least 1\.3$"),
        ({"ciphers": "ECDHE-RSA-AES128-GCM-SHA25:HIGH:AESGMC"}, "OpenSSL: ECDHE-RSA-AES128-GCM-SHA25, AESGMC; did you"),
        ({"ciphers": "HIGH:!AESGMC"}, "OpenSSL: !AESGMC; .*known: .*ECDHE-RSA-AES128-GCM-SHA256"),
        ({"ciphers": "TLS_AES_128_GCM_SHA256"}, "of TLS 1.3, and set as such"),
        ({"ciphers": "HIGH:@SECLEVEL=9"}, "@SECLEVEL=9"),
        ({"ciphers": "HIGH:!"}, "OpenSSL: !;"),
        ({"ciphers": ""}, "no suite of TLS 1.2 is named"),
        ({"ciphers": "AES128-SHA:!ALL"}, "no suite is left"),
        ({"ciphers": "HIGH\x00:!AES"}, "printable"),
        (
            {"ciphersuites": "TLS_AES_128_GCM_SHA256:TLS_AES_512"},
            "OpenSSL: TLS_AES_512; .*known: .*TLS_AES_128_GCM_SHA256",
        ),
        ({"ciphersuites": "ECDHE-RSA-AES128-GCM-SHA256"}, "of TLS 1.2, and set as such"),
        ({"ciphersuites": []}, "no suite of TLS 1.3 is named"),
        (
            {"groups": ["X25519", "X25518", "P-255"]},
            "OpenSSL: X25518, P-255; did you mean X25519.*known: .*X25519, P-256",
        ),
        ({"groups": "X25519:P-256/nope"}, "OpenSSL: nope; known"),
        ({"groups": ":,"}, "no key exchange group is named"),
        ({"groups": "X25519\x00"}, "printable"),
        ({"groups": "gr\u00fcn"}, "printable"),
        ({"signature_algorithms": ["ed25519", "ed25518"]}, "OpenSSL: ed25518; did you mean ed25519"),
        ({"signature_algorithms": ""}, "no signature algorithm is named"),
        ({"num_tickets": -1}, "num_tickets.* is -1: give a whole number from 0 to 32"),
        ({"num_tickets": 33}, "from 0 to 32"),
        ({"num_tickets": "two"}, "is 'two'"),
        ({"session_lifetime": 0}, "from 1 to 604800"),
        ({"session_lifetime": 604801}, "from 1 to 604800"),
        ({"session_lifetime": 1.5}, "whole number"),
        ({"session_cache_size": -1}, "from 0 to"),
    ],
)
def test_what_cannot_work_is_one_line(identity: Identity, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make(identity, **options)
    assert re.search(words, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "ciphers",
    [
        "HIGH:!aNULL:!MD5:!RC4:!3DES:!EXPORT:!kRSA:@STRENGTH",
        "ECDHE+AESGCM, ECDHE+CHACHA20; AES128-SHA",
        "DEFAULT@SECLEVEL=2",
        "ALL:+RC4:-CAMELLIA",
    ],
)
def test_the_language_of_ciphers(identity: Identity, ciphers: str) -> None:
    assert settled(make(identity, ciphers=ciphers), client_context(identity, "1.2"))


@pytest.mark.parametrize(
    "options",
    [
        {"groups": "X25519:X25519"},
        {"groups": "X25519/P-256"},
        {"groups": "?nope:X25519"},
        {"signature_algorithms": "ed25519:ed25519"},
        {"signature_algorithms": "?nope:ecdsa_secp256r1_sha256:ed25519"},
    ],
)
def test_what_newer_releases_of_openssl_take(identity: Identity, options: dict[str, str]) -> None:
    """They go by what OpenSSL takes; what it does not is one line."""
    complaint = None
    try:
        make(identity, **options)
    except ConfigurationError as error:
        complaint = str(error)
    assert complaint is None or re.search(
        r"OpenSSL refused[^\n]*: name each once, without the marks of newer", complaint
    )


def test_what_is_refused_changes_nothing_of_the_context_before(identity: Identity) -> None:
    context = TLSContext(identity.cert, identity.key, groups="P-384")
    with pytest.raises(ConfigurationError):
        context.replace(groups="nope")
    found = settled(context.pyopenssl, client_context(identity, "1.3"))
    assert found is not None
    assert found[2] == "secp384r1"
