"""OpenSSL's own asynchronous ENGINE, dasync, under the server: handshakes and data, byte for byte, and nothing left.

It pauses the job at each step of a SHA-1, so at each MAC of TLS 1.2's ECDHE-RSA-AES128-SHA: in the handshake's last
flight, in reads, in writes and in the goodbye. Its wait fd is a pipe for each connection, signalled before the pause.
What an ENGINE is made the default for it does for the whole process, so each test has a process of its own.
"""

from __future__ import annotations

import contextlib
import random
import ssl
from pathlib import Path
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING, Any

import pytest
from OpenSSL import SSL

from engine_shim import AsyncSSL, OpenSSLEngine, Status, counters
from helpers_server import House
from support import apart, dasync
from support.certificates import Certificates, Identity
from support.clients import reset
from support.engine_server import EngineServer, allow_many_files
from support.leaks import complaint, holdings
from support.memory import TUNABLES, usage
from support.pair import Pair, client_context, server_context
from support.storm import Storm
from tlsserver import TLSContext

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

pytestmark = pytest.mark.timeout(240)  # the first one fetches and builds

SUITES = "ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA@SECLEVEL=0"
# Its RSA cannot sign with OpenSSL 3, so with an RSA key it must not be the default for it.
ALGORITHMS = {"rsa2048": "CIPHERS,DIGESTS", "p256": "ALL"}
CONTEXT = {"ciphers": SUITES, "max_version": "1.2", "async_io": True}

# On both sides of a block, a record, several records; and one byte.
SIZES = (1, 15, 16, 17, 1_000, 16_383, 16_384, 16_385, 40_000, 100_000)

CLIENTS, ROUNDS = 250, 4


@pytest.fixture(scope="module")
def module() -> Path:
    return dasync.engine()


def browser(identity: Identity, *, encrypt_then_mac: bool = True) -> ssl.SSLContext:
    """Make a client's context that takes the old suites; without encrypt-then-mac (RFC 7366) OpenSSL uses another
    cipher, AES-CBC and HMAC in one, which dasync has as well, without pauses.
    """
    context = ssl.create_default_context(cafile=identity.ca)
    context.set_ciphers(SUITES)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    if not encrypt_then_mac:
        context.options |= 1 << 19  # SSL_OP_NO_ENCRYPT_THEN_MAC
    return context


def duplex(client: ssl.SSLSocket, data: bytes) -> Generator[int, None, None]:
    """Send and receive at the same time, each as fast as it goes; what comes back must be what was sent."""
    sent, got = 0, bytearray()
    while len(got) < len(data):
        with contextlib.suppress(ssl.SSLWantWriteError):
            while sent < len(data):
                sent += client.send(data[sent : sent + 50_000])
        with contextlib.suppress(ssl.SSLWantReadError):
            while len(got) < len(data):
                got += client.recv(100_000)
        if len(got) < len(data):
            yield EVENT_READ | (EVENT_WRITE if sent < len(data) else 0)
    assert got == data


def exchange(storm: Storm, seed: int) -> None:
    """Let each client send something of its own, and get it back."""
    source = random.Random(seed)
    payloads = [source.randbytes(SIZES[(seed + index) % len(SIZES)]) for index in range(len(storm.clients))]
    storm._run([duplex(client, payload) for client, payload in zip(storm.clients, payloads, strict=True)])


def say_goodbye(storm: Storm) -> None:
    for client in storm.clients:
        client.setblocking(True)
        client.unwrap().close()


def leave(storm: Storm) -> None:
    for client in storm.clients:
        client.close()


def vanish(storm: Storm) -> None:
    for client in storm.clients:
        reset(client)


def vanish_amid(storm: Storm) -> None:
    """They go while the server has their data, jobs, and much to say."""
    for client in storm.clients:
        with contextlib.suppress(ssl.SSLWantWriteError):
            client.send(bytes(300_000))
        reset(client)


WAYS: tuple[Callable[[Storm], None], ...] = (say_goodbye, leave, vanish, vanish_amid)


def parks(report: dict[str, Any]) -> int:
    found: int = report["statistics"]["park_seconds"]["count"]
    return found


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_a_thousand_connections(module: Path, certificates: Certificates, kind: str) -> None:
    allow_many_files()
    identity = certificates[kind]
    engine = {"engine_id": "dasync", "path": str(module), "algorithms": ALGORITHMS[kind]}
    with EngineServer(identity, engine, CONTEXT) as server:
        before = None
        for round_, way in enumerate([say_goodbye, *WAYS]):  # the first is not counted: it fills what is kept
            with Storm(server.address, CLIENTS, browser(identity)) as storm:
                storm.handshake()
                shaken = parks(server.report())
                for seed in range(3):
                    exchange(storm, seed)
                assert parks(server.report()) - shaken >= 6 * CLIENTS  # each read and each write
                assert {client.version() for client in storm.clients} == {"TLSv1.2"}
                way(storm)
            after = until_gone(server)
            before = before or after
        assert after["statistics"]["handshakes_completed"] == CLIENTS * (ROUNDS + 1)
        assert after["statistics"]["handshakes_parked"] == CLIENTS * (ROUNDS + 1)
        check_nothing_left(before, after)


def until_gone(server: EngineServer) -> dict[str, Any]:
    """Ask until the server has seen that its clients have left."""
    while (report := server.report())["statistics"]["connections_open"]:
        pass
    return report


def check_nothing_left(before: dict[str, Any], after: dict[str, Any]) -> None:
    statistics, numbers = after["statistics"], after["counters"]
    assert statistics["parked_now"] == statistics["draining_now"] == statistics["handshakes_failed"] == 0
    assert numbers["jobs_started"] == numbers["jobs_finished"]
    assert numbers["jobs_abandoned"] == 0
    assert after["descriptors"] == before["descriptors"]
    assert after["allocated"] - before["allocated"] < 16 * CLIENTS * ROUNDS
