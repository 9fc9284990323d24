"""No session resumes under another policy than that under which its client came in."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from OpenSSL import SSL

import engine_shim
from engine_shim import Status, TicketKeys
from engine_shim.native import ffi, lib
from support.client_scene import House, client, resumed, server, session_of
from support.hook_site import HookSite
from support.pair import Pair
from support.resumption import left
from tlsserver import ClientCertificates, TLSContext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.certificates import Identity

both_versions = pytest.mark.parametrize("version", ["1.2", "1.3"])


def policies(house: House, folder: Path) -> dict[str, ClientCertificates | None]:
    """All differ in one thing from the first, or not at all: then they begin with "same"."""
    both, turned, copied = folder / "both.pem", folder / "turned.pem", folder / "copied.pem"
    both.write_bytes(house.root.pem + house.stranger.pem)
    turned.write_bytes(house.stranger.pem + house.root.pem + house.stranger.pem)
    shutil.copy(both, copied)
    lists = [house.crl, house.stranger.revoke()]
    newer = house.root.revoke(house.revoked, house.other, file="newer.pem")
    return {
        "first": ClientCertificates("required", both, crls=lists),
        "same, elsewhere": ClientCertificates("required", copied, crls=lists),
        "same, in another order": ClientCertificates("required", turned, crls=lists[::-1]),
        "nobody asked": None,
        "optional": ClientCertificates("optional", both, crls=lists),
        "fewer authorities": ClientCertificates("required", house.root.cert, crls=lists[:1]),
        "no list": ClientCertificates("required", both),
        "newer list": ClientCertificates("required", both, crls=[newer, lists[1]]),
        "depth": ClientCertificates("required", both, crls=lists, depth=5),
    }


@both_versions
def test_a_session_resumes_under_its_own_policy_only(
    identity: Identity, house: House, tmp_path: Path, version: str
) -> None:
    keys = TicketKeys()  # as if several servers shared them
    made = {
        name: TLSContext(identity.cert, identity.key, client_certificates=asked, ticket_keys=keys)
        for name, asked in policies(house, tmp_path).items()
    }
    far = client(identity, house.good, version)
    for name, context in made.items():
        for other, elsewhere in made.items():
            same = name == other or {name.partition(",")[0], other.partition(",")[0]} <= {"first", "same"}
            assert resumed(elsewhere, far, session_of(context, far)) is same, (name, other)


@both_versions
@pytest.mark.parametrize("before", ["nobody asked", "optional"])
def test_a_session_without_a_certificate_does_not_come_in_where_one_is_required(
    identity: Identity, house: House, tmp_path: Path, version: str, before: str
) -> None:
    known = policies(house, tmp_path)
    old = TLSContext(identity.cert, identity.key, client_certificates=known[before])
    new = old.replace(client_certificates=known["first"])
    far = client(identity, None, version)
    told = {"1.2": "handshake failure", "1.3": "certificate required"}[version]
    assert resumed(new, far, session_of(old, far)) == told


@both_versions
def test_a_revoked_client_does_not_come_back_after_a_reload(
    identity: Identity, house: House, tmp_path: Path, version: str
) -> None:
    place = tmp_path / "crl.pem"
    shutil.copy(house.crl, place)
    old = server(identity, ClientCertificates(ca_certs=house.root.cert, crls=[place]))
    far = client(identity, house.other, version)
    session = session_of(old, far)
    shutil.copy(house.root.revoke(house.revoked, house.other, file="newer.pem"), place)
    new = old.replace()
    assert resumed(old, far, session) is True
    assert resumed(new, far, session) == "certificate revoked"


@both_versions
def test_a_server_that_begins_to_ask(identity: Identity, house: House, version: str) -> None:
    """Who has come in unasked does not come back so, and shows its certificate in a full handshake."""
    with HookSite(identity, house.good, version, None) as site:
        assert [site.visit(), site.visit()] == [False, True]
        new = site.context.replace(client_certificates=ClientCertificates(ca_certs=house.root.cert))
        site.server.swap_context(new)
        assert [site.visit(), site.visit()] == [False, True]


def index_of(function: str) -> int:
    return [ffi.string(lib.ossl_name(index)).decode() for index in range(lib.ossl_count())].index(function)


@pytest.fixture
def everything_expires() -> Iterator[Callable[[], None]]:
    """Let C find that every certificate has expired: what compares times returns 0, as where there is no error."""
    engine_shim.attach()
    compare = index_of("X509_cmp_current_time")
    honest = lib.ossl_address(compare)
    yield lambda: lib.ossl_bind(compare, lib.ossl_address(index_of("ERR_peek_error")))
    lib.ossl_bind(compare, honest)


@both_versions
def test_a_session_does_not_outlive_its_certificate(
    identity: Identity, house: House, everything_expires: Callable[[], None], version: str
) -> None:
    context = server(identity, ClientCertificates("optional", house.root.cert))
    known, unknown = client(identity, house.good, version), client(identity, None, version)
    first, second = session_of(context, known), session_of(context, unknown)
    assert resumed(context, known, first) is True
    everything_expires()
    assert resumed(context, known, first) is False
    assert resumed(context, unknown, second) is True


def test_a_session_without_a_ticket_does_not_outlive_its_certificate(
    identity: Identity, house: House, everything_expires: Callable[[], None]
) -> None:
    context = server(identity, ClientCertificates("optional", house.root.cert))
    far = client(identity, house.good, "1.2")
    far.set_options(SSL.OP_NO_TICKET)
    with Pair(context.pyopenssl, far) as pair:
        assert pair.finish() is Status.DONE
        pair.echo()
        session = left(pair.client)
        pair.flush_client()
        # Else OpenSSL takes it for a connection that was cut off, and forgets the session.
        assert pair.server.read_into(bytearray(1)) is Status.CLOSED
    everything_expires()
    assert resumed(context, far, session) is False
