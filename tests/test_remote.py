"""Key servers answer handshakes: each kind of key, each way there, and what a signer refuses from the start."""

from __future__ import annotations

import os
import ssl
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from engine_shim import KeyLoadError, Status
from support.key_server import KeyServer, server_tls
from support.pair import STATIC_RSA
from support.remote_scene import Scene
from tlsserver.errors import ConfigurationError
from tlsserver.reactor import Reactor
from tlsserver.signers.remote import ClientTLS, RemoteSigner

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from support.certificates import Certificates

KINDS = ("rsa2048", "rsa4096", "p256", "p384", "p521", "ed25519", "rsa-pss")


pytestmark = pytest.mark.usefixtures("no_ops_left")


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


def test_types_that_the_protocol_does_not_have(certificates: Certificates, tmp_path: Path) -> None:
    with RemoteSigner([f"unix:{tmp_path}/s"]) as signer:
        with pytest.raises(KeyLoadError, match="the keyless protocol has no ED448 signatures: use a key of type"):
            signer.load_key(certificates["ed448"].cert)
        with pytest.raises(KeyLoadError, match="is private"):
            signer.load_key(certificates["p256"].key)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"attempt_timeout": 0}, "attempt_timeout is 0: give seconds, 0.001 to 3600"),
        ({"ping_timeout": float("nan")}, "ping_timeout is nan"),
        ({"connections": 0}, "connections is 0: give 1 to 64"),
        ({"most_in_flight": 1 << 17}, "most_in_flight is 131072: give 1 to 65536"),
        ({"breaker_failures": 0}, "breaker_failures is 0"),
        ({"deadline": 0}, "signer remote cannot be made: deadline is 0"),
    ],
    ids=["attempt", "ping", "connections", "in flight", "breaker", "deadline"],
)
def test_setting_that_cannot_work(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        RemoteSigner([f"unix:{tmp_path}/s"], **options)


@pytest.mark.parametrize(
    ("addresses", "told"),
    [([], "no signer is given"), ("unix:/s", "no signer is given"), (["unix:/s", "unix:/s"], "is given twice")],
    ids=["none", "text", "twice"],
)
def test_addresses_that_cannot_work(addresses: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        RemoteSigner(addresses)


def test_numbers_before_anybody_joins(tmp_path: Path) -> None:
    with RemoteSigner([f"unix:{tmp_path}/1", f"unix:{tmp_path}/2"]) as signer:
        assert [(one.name, one.state, one.breaker) for one in signer.signers()] == [
            (f"unix:{tmp_path}/1", "down", "closed"),
            (f"unix:{tmp_path}/2", "down", "closed"),
        ]


def test_numbers_of_several_loops_and_of_those_that_ended(certificates: Certificates, tmp_path: Path) -> None:
    identity = certificates["p256"]
    with KeyServer([identity], tmp_path / "s") as server, Scene(identity, [server.address]) as scene:
        scene.handshake()
        other = Reactor()
        leave = scene.signer.join(other)
        scene.leave()
        pair = scene.begin()
        while not pair.signalled():
            other.run_turn(0.01)
        assert pair.until_parked() is Status.DONE
        numbers = scene.numbers()
        assert (numbers.performed, numbers.run_seconds.count, numbers.state) == (2, 2, "up")
        leave()
        other.close()
        numbers = scene.numbers()
        assert (numbers.performed, numbers.in_flight, numbers.state) == (2, 0, "down")


def test_forked_child_has_connections_of_its_own(certificates: Certificates, tmp_path: Path) -> None:
    """The child's copies of the parent's descriptors are closed, and the parent's key server hears nothing of it."""
    identity = certificates["p256"]
    with KeyServer([identity], tmp_path / "s") as server, Scene(identity, [server.address]) as scene:
        scene.handshake()
        pair = scene.begin()
        stream: Any = scene.pool.peers[0].links[0]._stream
        child = os.fork()
        if child == 0:
            os._exit(_child(scene, stream._channel._socket))
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert scene.end(pair) is Status.DONE
        scene.handshake()
        assert len(server.conversations) == 2
        assert [len(one.requests) for one in server.conversations] == [3, 1]


def _child(scene: Scene, parents: socket.socket) -> int:
    try:
        assert parents.fileno() == -1
        assert scene.signer.signers()[0].taken == 0
        scene.reactor = Reactor()
        scene.signer.join(scene.reactor)
        scene.handshake("1.3")
        assert scene.signer.signers()[0].performed == 1
    except BaseException:  # noqa: BLE001 - it is a process of its own, and nobody above would tell
        traceback.print_exc()
        return 1
    return 0


def test_links_share_a_turns_time(tmp_path: Path) -> None:
    with RemoteSigner([f"unix:{tmp_path}/1", f"unix:{tmp_path}/2"], connections=4) as signer:
        assert signer._settings.turn_seconds * 8 == pytest.approx(0.002)
