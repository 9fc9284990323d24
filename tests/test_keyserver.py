"""The key server: every answer is verified, and every refusal is the one that the protocol has."""

from __future__ import annotations

import gc
import hashlib
import socket
import threading
from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

import engine_shim
from engine_shim import BatchEngine, ManualEngine, Operations, ThreadEngine
from support import keyless_client as keyless
from support.keyless_client import KeylessClient, request
from support.keyserver_scene import digest_of, public_key, serving, serving_connected, ski, wait_for
from tlsserver.errors import ConfigurationError
from tlsserver.signers.keyserver import KeyServer
from tlsserver.signers.keyserver_keys import KeyRing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.certificates import Certificates
    from support.keyserver_scene import Scene

pytestmark = pytest.mark.usefixtures("no_leaks")

KINDS = ("rsa2048", "rsa-pss", "p256", "p384", "ed25519")


@pytest.fixture(scope="module", autouse=True)
def _pooled() -> None:
    """A pool keeps the fd of operations that have ended: what it has is no leak."""
    Operations().close()


@pytest.fixture(scope="module")
def files(certificates: Certificates) -> list[Path]:
    return [certificates[kind].key for kind in KINDS]


@pytest.fixture
def scene(tmp_path: Path, files: list[Path]) -> Iterator[Scene]:
    with serving(tmp_path, files) as made:
        yield made


@pytest.fixture
def client(scene: Scene) -> Iterator[KeylessClient]:
    with scene.client() as made:
        yield made


def prehashed(name: str) -> utils.Prehashed:
    return utils.Prehashed(getattr(hashes, name)())


# --- What it signs ---


@pytest.mark.parametrize("name", keyless.PKCS1)
def test_rsa_pkcs1(client: KeylessClient, certificates: Certificates, name: str) -> None:
    answer = client.ask(keyless.PKCS1[name], digest_of(name), ski(certificates, "rsa2048"))
    assert answer.opcode == keyless.SUCCESS
    public = public_key(certificates, "rsa2048")
    if name == "MD5-SHA1":
        numbers = public.public_numbers()
        opened = pow(int.from_bytes(answer.payload, "big"), numbers.e, numbers.n).to_bytes(256, "big")
        assert opened == b"\0\1" + b"\xff" * (256 - 3 - 36) + b"\0" + digest_of(name)
    else:
        public.verify(answer.payload, digest_of(name), padding.PKCS1v15(), prehashed(name))


@pytest.mark.parametrize("kind", ["rsa2048", "rsa-pss"])
@pytest.mark.parametrize("name", keyless.PSS)
def test_rsa_pss(client: KeylessClient, certificates: Certificates, name: str, kind: str) -> None:
    answer = client.ask(keyless.PSS[name], digest_of(name), ski(certificates, kind))
    scheme = padding.PSS(padding.MGF1(getattr(hashes, name)()), len(digest_of(name)))
    public_key(certificates, kind).verify(answer.payload, digest_of(name), scheme, prehashed(name))


@pytest.mark.parametrize("kind", ["p256", "p384"])
@pytest.mark.parametrize("name", keyless.ECDSA)
def test_ecdsa(client: KeylessClient, certificates: Certificates, name: str, kind: str) -> None:
    answer = client.ask(keyless.ECDSA[name], digest_of(name), ski(certificates, kind))
    assert answer.opcode == keyless.SUCCESS
    if name != "MD5-SHA1":
        public_key(certificates, kind).verify(answer.payload, digest_of(name), ec.ECDSA(prehashed(name)))
    elif kind == "p256":
        public_key(certificates, kind).verify(answer.payload, digest_of(name)[:32], ec.ECDSA(prehashed("SHA256")))


@pytest.mark.parametrize("size", [0, 1, 64, 60_000])
def test_ed25519(client: KeylessClient, certificates: Certificates, size: int) -> None:
    answer = client.ask(keyless.ED25519, bytes(size), ski(certificates, "ed25519"))
    public_key(certificates, "ed25519").verify(answer.payload, bytes(size))


def test_key_by_the_digest_of_its_modulus(client: KeylessClient, certificates: Certificates) -> None:
    numbers = public_key(certificates, "rsa2048").public_numbers()
    name = hashlib.sha256(f"{numbers.n:X}".encode()).digest()
    body = keyless.item(0x12, digest_of("SHA256")) + keyless.item(0x11, b"\x05") + keyless.item(0x01, name)
    client.send(keyless.frame(9, body))
    answer = client.answer()
    assert answer is not None
    assert (answer.id, answer.opcode) == (9, keyless.SUCCESS)


def test_ping(client: KeylessClient) -> None:
    for payload in (b"", b"are you there?", bytes(65_528)):
        answer = client.ask(keyless.PING, payload)
        assert (answer.opcode, answer.payload) == (keyless.PONG, payload)


def test_batches(tmp_path: Path, certificates: Certificates) -> None:
    """Requests of several clients, sent without waiting, share batches."""
    with serving(tmp_path, [certificates["rsa2048"].key], engine=BatchEngine(0)) as scene:
        lanes = scene.engine.lanes  # type: ignore[attr-defined] # it is a BatchEngine
        clients = [scene.client() for _ in range(4)]
        data = b"".join(request(n, 0x05, digest_of("SHA256"), ski(certificates, "rsa2048")) for n in range(32))
        for client in clients:
            client.send(data)
        public = public_key(certificates, "rsa2048")
        for client in clients:
            answers = [client.answer() for _ in range(32)]
            assert {answer.id for answer in answers if answer is not None} == set(range(32))
            for answer in answers:
                assert answer is not None
                public.verify(answer.payload, digest_of("SHA256"), padding.PKCS1v15(), prehashed("SHA256"))
            client.socket.close()
        numbers = scene.engine.statistics()
        assert numbers.performed == 128
        if lanes:
            assert numbers.batched >= 100


# --- What it refuses ---


def test_refusals(client: KeylessClient, certificates: Certificates) -> None:
    rsa, p256, digest = ski(certificates, "rsa2048"), ski(certificates, "p256"), digest_of("SHA256")
    expected: list[tuple[tuple[Any, ...], int]] = [
        ((0x05, digest, bytes(20)), keyless.NO_KEY),
        ((0x05, digest), keyless.NO_KEY),
        ((0x05, digest, p256), keyless.CRYPTOGRAPHY),
        ((0x15, digest, rsa), keyless.CRYPTOGRAPHY),
        ((0x18, digest, p256), keyless.CRYPTOGRAPHY),
        ((0x05, digest, ski(certificates, "rsa-pss")), keyless.CRYPTOGRAPHY),
        ((0x05, digest[1:], rsa), keyless.FORMAT),
        ((0x36, digest, rsa), keyless.FORMAT),
        ((0x15, b"", p256), keyless.FORMAT),
        ((0x00, b""), keyless.BAD_OPCODE),
        ((0x22, b"sealed"), keyless.BAD_OPCODE),
        ((0xF0, digest, rsa), keyless.UNEXPECTED_OPCODE),
        ((0xF2, b""), keyless.UNEXPECTED_OPCODE),
        ((0xFF, b"\x01"), keyless.UNEXPECTED_OPCODE),
    ]
    for asked, code in expected:
        assert client.ask(*asked).error == code, asked
    assert client.ask(0x15, digest, p256).opcode == keyless.SUCCESS


@pytest.mark.parametrize("allowed", [False, True])
def test_decryption(tmp_path: Path, certificates: Certificates, allowed: bool) -> None:
    """The one with padding is an oracle (Bleichenbacher), so nobody gets it; the raw one is for those who say so."""
    name, numbers = ski(certificates, "rsa2048"), public_key(certificates, "rsa2048").public_numbers()
    ciphertext = pow(0x1234, numbers.e, numbers.n).to_bytes(256, "big")
    with serving(tmp_path, [certificates["rsa2048"].key], allow_decrypt=allowed) as scene, scene.client() as client:
        assert client.ask(keyless.RSA_DECRYPT, ciphertext, name).error == keyless.BAD_OPCODE
        answer = client.ask(keyless.RSA_DECRYPT_RAW, ciphertext, name)
        if allowed:
            assert answer.payload == (0x1234).to_bytes(256, "big")
            assert client.ask(keyless.RSA_DECRYPT_RAW, ciphertext[1:], name).error == keyless.FORMAT
            beyond = numbers.n.to_bytes(256, "big")
            assert client.ask(keyless.RSA_DECRYPT_RAW, beyond, name).error == keyless.CRYPTOGRAPHY
        else:
            assert answer.error == keyless.BAD_OPCODE


def test_malformed_messages_cost_themselves_alone(client: KeylessClient) -> None:
    opcode = keyless.item(0x11, bytes([keyless.PING]))
    for body in (b"", b"\x11", b"\x12\xff\xffx", opcode + opcode, opcode + keyless.item(0x04, bytes(19))):
        client.send(keyless.frame(7, body))
        answer = client.answer()
        assert answer is not None
        assert (answer.id, answer.error) == (7, keyless.FORMAT)
    assert client.ask(keyless.PING, b"still here").payload == b"still here"


def test_another_version_ends_the_connection(scene: Scene) -> None:
    with scene.client() as client:
        client.send(request(1, keyless.PING, b"before") + keyless.frame(2, b"", major=2) + request(3, keyless.PING))
        before, refused = client.answer(), client.answer()
        assert before is not None
        assert refused is not None
        assert (before.payload, refused.id, refused.error) == (b"before", 2, keyless.VERSION)
        assert client.answer() is None


@pytest.mark.parametrize(
    "rubbish",
    [b"\xff" * 4096, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + bytes(300), b"\x01\x00\xff\xff" + bytes(100)],
    ids=["ff", "http", "tls", "half a frame"],
)
def test_rubbish(scene: Scene, rubbish: bytes) -> None:
    with scene.client() as client:
        client.send(rubbish)
        client.socket.shutdown(socket.SHUT_WR)
        while client.answer() is not None:
            pass
    with scene.client() as client:
        assert client.ask(keyless.PING, b"next").payload == b"next"


# --- Clients that do not behave ---


def test_client_that_reads_nothing(scene: Scene, certificates: Certificates) -> None:
    """It sends until its socket is full: what the server holds of it is bounded, and others are served."""
    with scene.client() as hog, scene.client() as other:
        data = request(1, 0x15, digest_of("SHA256"), ski(certificates, "p256")) * 500
        sent = hog.stuff(data, lambda: other.ask(keyless.PING, b"meanwhile"))
        assert sent < 20_000_000
        transports = [one for local in scene.server._local for one in local._connections]
        protocols: list[Any] = [one.get_protocol() for one in transports]
        assert max(one.get_write_buffer_size() for one in transports) < 512 * 1024
        assert all(len(one._pending) <= 256 for one in protocols)
        assert all(len(one._requests) < 1000 for one in protocols)


def test_pings_that_nobody_reads_back(scene: Scene) -> None:
    with scene.client() as hog, scene.client() as other:
        hog.stuff(request(1, keyless.PING, bytes(60_000)), lambda: other.ask(keyless.PING))
        transports = [one for local in scene.server._local for one in local._connections]
        assert max(one.get_write_buffer_size() for one in transports) < 512 * 1024


def test_what_is_refused_costs_the_others_little(scene: Scene) -> None:
    """A client's thousand refusals are no single turn of the loop: whoever else asks comes in between."""
    refused: list[int] = []
    scene.server.call_soon_threadsafe(
        lambda: scene.server._reactor.at_end_of_turn(lambda: refused.append(scene.desk.numbers.refused))
    )
    with scene.client() as hog:
        hog.send(keyless.frame(1, b"") * 1000 + request(2, keyless.PING))
        codes = [answer.error for answer in (hog.answer() for _ in range(1001)) if answer is not None]
    assert codes == [keyless.FORMAT] * 1000 + [None]
    assert max(after - before for before, after in pairwise(refused)) <= 128  # as it is read, and at its turn


def test_pipelined_requests_in_any_pieces(scene: Scene, certificates: Certificates) -> None:
    names = {kind: ski(certificates, kind) for kind in ("rsa2048", "p256")}
    data = b"".join(
        request(n, 0x15 if n % 2 else 0x05, digest_of("SHA256"), names["p256" if n % 2 else "rsa2048"])
        for n in range(1000)
    )
    with scene.client() as client:
        pieces = [data[at : at + 777] for at in range(0, len(data), 777)]
        writer = threading.Thread(target=lambda: deque(map(client.send, pieces), 0))
        writer.start()
        found = [client.answer() for _ in range(1000)]
        writer.join()
    assert {one.id for one in found if one is not None and one.opcode == keyless.SUCCESS} == set(range(1000))


def test_most_at_a_time(tmp_path: Path, certificates: Certificates) -> None:
    with (
        ManualEngine() as engine,
        serving(tmp_path, [certificates["p256"].key], engine=engine, max_pending=3) as scene,
        scene.client() as client,
    ):
        name = ski(certificates, "p256")
        client.send(b"".join(request(n, 0x15, digest_of("SHA256"), name) for n in range(10)))
        for done in range(10):
            wait_for(scene, lambda done=done: engine.pending == min(3, 10 - done))
            engine.perform()
            answer = client.answer()
            assert answer is not None
            assert answer.id == done


def test_client_leaves(tmp_path: Path, certificates: Certificates) -> None:
    gc.collect()
    before = engine_shim.counters().ops_alive
    log = tmp_path / "audit"
    with (
        ManualEngine() as engine,
        serving(tmp_path, [certificates["p256"].key], engine=engine, audit=str(log)) as scene,
    ):
        with scene.client() as client:
            client.send(b"".join(request(n, 0x15, digest_of("SHA256"), ski(certificates, "p256")) for n in range(5)))
            wait_for(scene, lambda: engine.pending == 5)
        wait_for(scene, lambda: engine.pending == 0)
        wait_for(scene, lambda: scene.server.statistics().connections == 0)
        assert scene.server.statistics().given_up == 5
    assert log.read_text().count('"the client has left"') == 5
    gc.collect()
    assert engine_shim.counters().ops_alive == before


# --- Its life ---


def test_stopping_answers_what_was_asked(tmp_path: Path, certificates: Certificates) -> None:
    with (
        ManualEngine() as engine,
        serving(tmp_path, [certificates["p256"].key], engine=engine) as scene,
        scene.client() as client,
        scene.client() as idle,
    ):
        client.send(request(1, 0x15, digest_of("SHA256"), ski(certificates, "p256")))
        wait_for(scene, lambda: engine.pending == 1)
        scene.server.stop()
        assert idle.answer() is None
        engine.perform()
        answer = client.answer()
        assert answer is not None
        assert answer.opcode == keyless.SUCCESS
        assert client.answer() is None
        with pytest.raises(ConnectionRefusedError):
            scene.client()


def test_stopping_at_once(tmp_path: Path, certificates: Certificates) -> None:
    with (
        ManualEngine() as engine,
        serving(tmp_path, [certificates["p256"].key], engine=engine) as scene,
        scene.client() as client,
    ):
        client.send(request(1, 0x15, digest_of("SHA256"), ski(certificates, "p256")))
        wait_for(scene, lambda: engine.pending == 1)
        scene.server.stop(0)
        assert client.answer() is None


def test_engine_that_is_closed(tmp_path: Path, certificates: Certificates) -> None:
    with serving(tmp_path, [certificates["p256"].key], engine=ThreadEngine(1)) as scene, scene.client() as client:
        scene.engine.close()
        assert client.ask(0x15, digest_of("SHA256"), ski(certificates, "p256")).error == keyless.INTERNAL


def test_connected_socket(tmp_path: Path, certificates: Certificates) -> None:
    """The end of the connection is the end of the server."""
    with serving_connected(tmp_path, [certificates["p256"].key]) as (scene, sock), KeylessClient(sock) as client:
        assert client.ask(0x15, digest_of("SHA256"), ski(certificates, "p256")).opcode == keyless.SUCCESS
        client.socket.close()
        thread = scene.server._thread
        assert thread is not None
        thread.join(keyless.PATIENCE)
        assert not thread.is_alive()


def test_other_keys(scene: Scene, certificates: Certificates) -> None:
    name = ski(certificates, "p521")
    with scene.client() as client:
        assert client.ask(0x17, digest_of("SHA512"), name).error == keyless.NO_KEY
        scene.server.replace(KeyRing.load([certificates["p521"].key], None, scene.engine))
        wait_for(scene, lambda: True)
        assert client.ask(0x17, digest_of("SHA512"), name).opcode == keyless.SUCCESS
        assert client.ask(0x15, digest_of("SHA256"), ski(certificates, "p256")).error == keyless.NO_KEY


def test_settings_that_cannot_work(scene: Scene) -> None:
    with pytest.raises(ConfigurationError, match="give 1 or more"):
        KeyServer(scene.desk, scene.engine, max_pending=0)
