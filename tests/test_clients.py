"""Client certificates: who comes in, which alert the others get, and what is said of a setting that cannot work."""

from __future__ import annotations

import logging
import shutil
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from helpers_server import Echo
from OpenSSL import SSL

import engine_shim
from engine_shim import ManualEngine, Status, clients
from support.client_authority import DAY, Authority, Holder
from support.client_scene import House, alert, client, server, verdict
from support.pair import Pair
from support.running import Running
from tlsserver import ClientCertificates, ConfigurationError, TLSContext

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.certificates import Identity
    from tlsserver import ClientCertificateRequest

both_versions = pytest.mark.parametrize("version", ["1.2", "1.3"])
both_ways = pytest.mark.parametrize("offloaded", [False, True], ids=["in place", "offloaded"])


# Who comes in


@both_ways
@both_versions
@pytest.mark.parametrize("mode", ["optional", "required"])
@pytest.mark.parametrize(
    ("who", "told"),
    [
        ("good", ""),
        ("below", ""),
        ("unknown", "unknown ca"),
        ("expired", "certificate expired"),
        ("early", "bad certificate"),
        ("server", "unsupported certificate"),
    ],
)
def test_who_comes_in(
    identity: Identity, house: House, *, who: str, told: str, mode: Any, version: str, offloaded: bool
) -> None:
    context = server(identity, ClientCertificates(mode, house.root.cert))
    assert verdict(context, client(identity, getattr(house, who), version), offloaded=offloaded) == told


@both_versions
def test_nobody_without_a_certificate_where_one_is_required(identity: Identity, house: House, version: str) -> None:
    told = verdict(server(identity, ClientCertificates("required", house.root.cert)), client(identity, None, version))
    assert told == {"1.2": "handshake failure", "1.3": "certificate required"}[version]
    assert (
        verdict(server(identity, ClientCertificates("optional", house.root.cert)), client(identity, None, version))
        == ""
    )


@both_versions
def test_revoked(identity: Identity, house: House, version: str) -> None:
    context = server(identity, ClientCertificates(ca_certs=house.root.cert, crls=[house.crl]))
    assert verdict(context, client(identity, house.revoked, version)) == "certificate revoked"
    assert verdict(context, client(identity, house.good, version)) == ""


def test_a_revocation_list_in_der(identity: Identity, house: House) -> None:
    crl = house.root.revoke(house.revoked, file="other.der")
    context = server(identity, ClientCertificates(ca_certs=house.root.cert, crls=[crl]))
    assert verdict(context, client(identity, house.revoked)) == "certificate revoked"


def test_the_whole_chain_is_looked_up(
    identity: Identity, house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An authority that is revoked, and one without a list, let nobody in."""
    middle = Holder(house.middle.cert, house.middle.cert, house.middle.x509)
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(house.root.pem + house.middle.pem)
    lists = [house.root.revoke(middle, file="whole.pem"), house.middle.revoke()]
    context = server(identity, ClientCertificates(ca_certs=bundle, crls=lists))
    assert verdict(context, client(identity, house.below)) == "certificate revoked"
    context = server(identity, ClientCertificates(ca_certs=bundle, crls=[house.crl, lists[1]]))
    assert verdict(context, client(identity, house.below)) == ""
    with caplog.at_level(logging.WARNING):
        context = server(identity, ClientCertificates(ca_certs=bundle, crls=[house.crl]))
    assert "no CRL of CN=middle" in caplog.text
    assert verdict(context, client(identity, house.below)) == "unknown ca"


@pytest.mark.parametrize(("depth", "told"), [(0, "unknown ca"), (1, "unknown ca"), (2, "")])
def test_depth(identity: Identity, house: House, tmp_path: Path, depth: int, told: str) -> None:
    chain = tmp_path / "deep.pem"
    chain.write_bytes(house.deep.cert.read_bytes() + house.middle.pem)
    deep = Holder(chain, house.deep.key, house.deep.x509)
    context = server(identity, ClientCertificates(ca_certs=house.root.cert, depth=depth))
    assert verdict(context, client(identity, deep)) == told


def test_an_intermediate_authority_alone_is_trusted(identity: Identity, house: House) -> None:
    context = server(identity, ClientCertificates(ca_certs=house.middle.cert))
    assert verdict(context, client(identity, house.below)) == ""
    assert verdict(context, client(identity, house.good)) == "unknown ca"


def test_a_folder_of_authorities(identity: Identity, house: House, tmp_path: Path) -> None:
    shutil.copy(house.root.cert, tmp_path / "a.pem")
    shutil.copy(house.stranger.cert, tmp_path / "b.pem")
    (tmp_path / "5ed36f99.0").symlink_to("b.pem")  # as c_rehash makes them
    (tmp_path / "README").write_text("what lies beside them is not read")
    (tmp_path / "gone.pem").symlink_to("nowhere")
    context = server(identity, ClientCertificates(ca_path=tmp_path))
    for holder in (house.good, house.unknown):
        assert verdict(context, client(identity, holder)) == ""
    assert {tmp_path, tmp_path / "a.pem", tmp_path / "5ed36f99.0"} <= set(context.files)


def test_clients_are_told_whose_certificates_are_wanted(identity: Identity, house: House, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(house.root.pem + house.stranger.pem + house.root.pem)
    context = server(identity, ClientCertificates("optional", bundle))
    with Pair(context.pyopenssl, client(identity, None)) as pair:
        assert pair.finish() is Status.DONE
        assert [name.CN for name in pair.client.get_client_ca_list()] == ["root", "stranger"]


def test_a_key_in_an_engine(identity: Identity, house: House) -> None:
    with ManualEngine() as engine:
        key = engine.load_key(identity.key)
        context = TLSContext(identity.cert, key, client_certificates=ClientCertificates(ca_certs=house.root.cert))
        with Pair(context.pyopenssl, client(identity, house.unknown)) as pair:
            assert pair.until_parked() is Status.WANT_ASYNC
            engine.perform()
            assert pair.finish() is Status.ERROR
            assert alert(pair) == "unknown ca"


# The alerts, by their numbers (RFC 8446, 6), as another implementation's client sees them


@pytest.fixture(scope="module")
def site(certificates: Any, house: House) -> Iterator[Running]:
    context = server(certificates["p256"], ClientCertificates(ca_certs=house.root.cert, crls=[house.crl]))
    with Running(context, Echo) as running:
        yield running


@pytest.mark.parametrize(
    ("who", "number"),
    [(None, 116), ("unknown", 48), ("expired", 45), ("early", 42), ("revoked", 44), ("server", 43)],
)
def test_alerts_of_openssls_own_client(site: Running, house: House, who: str | None, number: int) -> None:
    holder = None if who is None else getattr(house, who)
    given = [] if holder is None else ["-cert", holder.cert, "-key", holder.key]
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{site.port}", "-quiet", *map(str, given)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, input="")
    assert f"SSL alert number {number}" in ran.stderr


def test_pythons_own_client_comes_in(site: Running, identity: Identity, house: House) -> None:
    context = ssl.create_default_context(cafile=str(identity.ca))
    context.load_cert_chain(house.good.cert, house.good.key)
    with (
        socket.create_connection(site.address, 30) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        tls.sendall(b"hello")
        assert tls.recv(5) == b"HELLO"


# What cannot work


def complaint(asked: ClientCertificates, identity: Identity) -> str:
    with pytest.raises(ConfigurationError) as caught:
        server(identity, asked)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def _never_run(_request: ClientCertificateRequest) -> None:
    raise AssertionError("nobody runs it")


def test_files_that_cannot_work(identity: Identity, house: House, tmp_path: Path) -> None:
    empty, damaged = tmp_path / "empty.pem", tmp_path / "damaged.pem"
    empty.write_text("# nothing yet\n")
    damaged.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for asked, told in [
        (ClientCertificates(ca_certs=empty), f"no certificate of an authority in {empty}: put the clients' CA there"),
        (ClientCertificates(ca_path=tmp_path / "no"), f"CA folder {tmp_path / 'no'}: is no folder"),
        (ClientCertificates(ca_certs=tmp_path / "no"), f"CA file {tmp_path / 'no'}: No such file or directory: give"),
        (ClientCertificates(ca_certs=tmp_path), "Is a directory"),
        (ClientCertificates(ca_certs=damaged), f"CA file {damaged}: entry 1 cannot be read"),
        (ClientCertificates(), "no authority is given whose clients may come in"),
        (
            ClientCertificates("sometimes", house.root.cert),  # type: ignore[arg-type]
            "mode 'sometimes' is not known: choose from optional, required",
        ),
        (ClientCertificates(ca_certs=house.root.cert, depth=-1), "depth -1 is less than 0"),
        (ClientCertificates(ca_certs=house.root.cert, depth=1 << 40), f"depth {1 << 40} is more than 100"),
        (
            ClientCertificates(ca_certs=house.root.cert, on_verified="hook"),  # type: ignore[arg-type]
            "on_verified is 'hook': give a function",
        ),
        (ClientCertificates(ca_certs=house.root.cert, on_verified=_never_run), "on_verified is a coroutine function"),
        (ClientCertificates(ca_certs=house.root.cert, crls=[house.root.cert]), "there is none in it"),
        (ClientCertificates(ca_certs=house.middle.cert, crls=[house.crl]), "without the issuer of CN=middle: add its"),
        (ClientCertificates(ca_certs=house.root.cert, crls=[empty]), f"CRL {empty}: there is none in it"),
    ]:
        assert told in complaint(asked, identity)


def test_revocation_lists_that_cannot_work_all_at_once(identity: Identity, house: House, tmp_path: Path) -> None:
    impostor = Authority(tmp_path, "root")
    crls = [
        house.stranger.revoke(),
        house.root.revoke(file="old.pem", since=-3 * DAY, until=-DAY),
        house.root.revoke(file="early.pem", since=DAY, until=2 * DAY),
        impostor.revoke(file="false.pem"),
        tmp_path / "missing.pem",
    ]
    told = complaint(ClientCertificates(ca_certs=house.root.cert, crls=crls), identity)
    for path, reason in zip(
        crls,
        [
            "its issuer CN=stranger is not among the authorities: add that certificate to the CA file",
            "it has expired at ",
            "it is not valid before ",
            "its signature is not that of CN=root: get it anew",
            "No such file or directory",
        ],
        strict=True,
    ):
        assert f"CRL {path}: {reason}" in told
    assert told.count("; client certificates: ") == len(crls) - 1


def test_reloaded_files_are_read_anew(identity: Identity, house: House, tmp_path: Path) -> None:
    place = tmp_path / "ca.pem"
    shutil.copy(house.stranger.cert, place)
    context = server(identity, ClientCertificates(ca_certs=place))
    assert verdict(context, client(identity, house.good)) == "unknown ca"
    shutil.copy(house.root.cert, place)
    assert verdict(context.replace(), client(identity, house.good)) == ""
    assert verdict(context, client(identity, house.good)) == "unknown ca"
    assert place in context.files


def test_the_shim_refuses_what_is_no_certificate() -> None:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    with pytest.raises(engine_shim.ShimError, match="certificate of an authority: OpenSSL refused"):
        clients.trust(context, b"\x30\x00", named=True)
    with pytest.raises(engine_shim.ShimError, match="CRL: OpenSSL refused"):
        clients.revoke(context, b"", clients.CRL_CHECK)
