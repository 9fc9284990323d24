"""Key servers answer handshakes: each kind of key, each way there, and what a signer refuses from the start."""

from __future__ import annotations

import gc
import ssl
from typing import TYPE_CHECKING

import pytest

import engine_shim
from support import leaks
from support.key_server import KeyServer, server_tls
from support.pair import STATIC_RSA
from support.remote_scene import Scene
from tlsserver.signers.remote import ClientTLS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.certificates import Certificates

KINDS = ("rsa2048", "rsa4096", "p256", "p384", "p521", "ed25519", "rsa-pss")


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    gc.collect()
    before = engine_shim.counters()
    yield
    gc.collect()
    leaks.wait_until(lambda: engine_shim.counters().ops_alive == before.ops_alive)
    after = engine_shim.counters()
    assert (after.ops_alive, after.keys_alive) == (before.ops_alive, before.keys_alive)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("kind", KINDS)
def test_handshake_over_a_unix_socket(certificates: Certificates, tmp_path: Path, kind: str, version: str) -> None:
    identity = certificates[kind]
    with KeyServer([identity], tmp_path / "s") as server, Scene(identity, [server.address]) as scene:
        scene.handshake(version)
        numbers = scene.numbers()
        assert (numbers.name, numbers.state, numbers.breaker) == (server.address, "up", "closed")
        assert (numbers.taken, numbers.performed, numbers.failed, numbers.in_flight) == (1, 1, 0, 0)
        assert numbers.queue_seconds.count == numbers.run_seconds.count == numbers.total_seconds.count == 1


def test_decryption(certificates: Certificates, tmp_path: Path) -> None:
    identity = certificates["rsa2048"]
    with KeyServer([identity], tmp_path / "s") as server, Scene(identity, [server.address]) as scene:
        scene.handshake("1.2", STATIC_RSA)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("where", ["tcp", "unix"])
def test_handshake_over_mutual_tls(
    certificates: Certificates, tmp_path: Path, where: str, version: ssl.TLSVersion
) -> None:
    identity = certificates["p256"]
    context = server_tls(identity, identity.ca, version)
    client = certificates["rsa2048"]
    tls = ClientTLS(client.cert, client.key, identity.ca, server_name="localhost")
    path = tmp_path / "s" if where == "unix" else None
    with KeyServer([identity], path, tls=context) as server, Scene(identity, [server.address], tls=tls) as scene:
        scene.handshake("1.3")
        scene.handshake("1.2")
        assert len(server.conversations) == 1
