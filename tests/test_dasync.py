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
from helpers_server import House

from engine_shim import AsyncSSL, KeyLoadError, OpenSSLEngine, Status, counters
from support import apart, dasync
from support.certificates import Certificates, Identity
from support.child_server import allow_many_files
from support.clients import reset
from support.engine_server import EngineServer
from support.leaks import complaint, holdings
from support.memory import TUNABLES, usage
from support.pair import Pair, client_context, server_context
from support.storm import Storm
from tlsserver import TLSContext, cli

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from OpenSSL import SSL

pytestmark = pytest.mark.timeout(240)  # the first one fetches and builds

SUITES = "ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA@SECLEVEL=0"
# Its RSA cannot sign with OpenSSL 3, so with an RSA key it must not be the default for it.
ALGORITHMS = {"rsa2048": "CIPHERS,DIGESTS", "p256": "ALL"}
CONTEXT: dict[str, Any] = {"ciphers": SUITES, "max_version": "1.2", "async_io": True}

# On both sides of a block, a record, several records; and one byte.
SIZES = (1, 15, 16, 17, 1_000, 16_383, 16_384, 16_385, 40_000, 100_000)

CLIENTS, ROUNDS = 125, 8  # at once, and how often; the first half fills what is kept for good

JOB_SIZE = 40_000  # bytes: a stack of 32 KiB, and a little


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
        reports = []
        for way in WAYS * (ROUNDS // len(WAYS)):
            with Storm(server.address, CLIENTS, browser(identity)) as storm:
                storm.handshake()
                shaken = parks(server.report())
                for seed in range(3):
                    exchange(storm, seed)
                assert parks(server.report()) - shaken >= 6 * CLIENTS  # each read and each write
                assert {client.version() for client in storm.clients} == {"TLSv1.2"}
                way(storm)
            reports.append(until_gone(server))
        numbers = reports[-1]["statistics"]
        assert numbers["handshakes_completed"] == numbers["handshakes_parked"] == CLIENTS * ROUNDS
        check_nothing_left(reports[ROUNDS // 2 - 1], reports[-1])


def test_a_cipher_and_mac_in_one(module: Path, certificates: Certificates) -> None:
    """It does not pause there, but computes: each connection has its own state."""
    engine = {"engine_id": "dasync", "path": str(module), "algorithms": "ALL"}
    with EngineServer(certificates["p256"], engine, CONTEXT) as server:
        with Storm(server.address, 50, browser(certificates["p256"], encrypt_then_mac=False)) as storm:
            storm.handshake()
            for seed in range(3):
                exchange(storm, seed)
            say_goodbye(storm)
        assert parks(until_gone(server)) == 0


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
    # OpenSSL keeps as many jobs as were ever paused at one time.
    jobs = statistics["parked_max"] - before["statistics"]["parked_max"] + 1
    assert after["allocated"] - before["allocated"] < jobs * JOB_SIZE + 64 * CLIENTS * ROUNDS // 2


# One connection, step by step.


def prepared(module: str, folder: str) -> tuple[Identity, SSL.Context]:
    """Load the ENGINE into this process, and make the server's context; the ENGINE stays the default."""
    identity = Certificates(Path(folder))["p256"]
    engine = OpenSSLEngine("dasync", module, algorithms="ALL")
    return identity, server_context(identity, engine.load_key(identity.key.read_bytes()), SUITES)


def resumed(pair: Pair, call: Callable[..., Status], *arguments: object) -> Status:
    """Make a call that pauses, and repeat it until it does not any more."""
    status = call(*arguments)
    assert status is Status.WANT_ASYNC, status
    while status is Status.WANT_ASYNC:
        assert pair.server.paused
        pair.wait()
        status = call(*arguments)
    return status


def pauses_everywhere(module: str, folder: str) -> None:
    identity, context = prepared(module, folder)
    with Pair(context, client_context(identity, "1.2", SUITES), io=True) as pair:
        assert pair.finish() is Status.DONE
        assert pair.parks >= 1
        pair.client.send(b"ping")
        pair.flush_client()
        buffer = bytearray(100)
        assert resumed(pair, pair.server.read_into, buffer) is Status.DONE
        assert buffer[: pair.server.count] == b"ping"
        assert resumed(pair, pair.server.write, b"pong") is Status.DONE
        pair.client.bio_write(pair._far.recv(1 << 16))
        assert pair.client.recv(100) == b"pong"
        assert resumed(pair, pair.server.shutdown) is Status.DONE
    check_jobs()


def check_jobs() -> None:
    numbers = counters()
    assert numbers.jobs_started == numbers.jobs_finished
    assert numbers.jobs_abandoned == 0


def test_every_call_pauses(module: Path, tmp_path: Path) -> None:
    apart.run(pauses_everywhere, module, tmp_path)


def pauses_after_an_error(module: str, folder: str) -> None:
    """OpenSSL answers an error with an alert, whose MAC pauses the job: the error is on the queue by then."""
    identity, context = prepared(module, folder)
    with Pair(context, client_context(identity, "1.2", SUITES), io=True) as pair:
        assert pair.finish() is Status.DONE
        pair._far.close()
        assert resumed(pair, pair.server.read_into, bytearray(100)) is Status.ERROR
        assert "unexpected eof while reading" in [error.text for error in pair.server.errors()]
    check_jobs()


def test_an_error_does_not_hide_the_pause(module: Path, tmp_path: Path) -> None:
    apart.run(pauses_after_an_error, module, tmp_path)


MOMENTS: dict[str, Callable[[AsyncSSL], Status]] = {
    "read": lambda server: server.read_into(bytearray(100)),
    "write": lambda server: server.write(b"data"),
    "shutdown": lambda server: server.shutdown(),
}


def leave_while_paused(context: SSL.Context, client: SSL.Context, moment: str) -> int:
    """Close while the job is paused; give how often it had to be resumed for that."""
    with Pair(context, client, io=True) as pair:
        if moment == "handshake":
            assert pair.until_parked() is Status.WANT_ASYNC
        else:
            assert pair.finish() is Status.DONE
            pair.client.send(b"ping")
            pair.flush_client()
            assert MOMENTS[moment](pair.server) is Status.WANT_ASYNC
        pair._far.close()
        drained = 1
        while not pair.server.close():
            pair.wait()
            drained += 1
        return drained


def leaves_while_paused(module: str, folder: str, moment: str) -> None:
    identity, context = prepared(module, folder)
    client = client_context(identity, "1.2", SUITES)
    for _ in range(20):
        leave_while_paused(context, client, moment)
    held, before = holdings(), usage()
    most = max(leave_while_paused(context, client, moment) for _ in range(200))
    after = usage()
    assert most > 1, "the job never paused again while it was drained"
    assert not complaint(held, holdings())
    assert after.allocated - before.allocated < 64 * 200
    check_jobs()


@pytest.mark.parametrize("moment", ["handshake", *MOMENTS])
def test_a_client_leaves_while_its_job_is_paused(module: Path, tmp_path: Path, moment: str) -> None:
    """Nobody can cancel what an ENGINE does: the job is resumed until it ends."""
    apart.run(leaves_while_paused, module, tmp_path, moment, variables=TUNABLES)


def drains_in_the_server(module: str, folder: str) -> None:
    identity, _ = prepared(module, folder)
    engine = OpenSSLEngine("dasync", algorithms=None)
    context = TLSContext(identity.cert, engine.load_key(identity.key.read_bytes()), **CONTEXT)
    with House(identity) as house:
        house.server.swap_context(context)
        house.client_context = browser(identity)
        stays = house.connected()
        for go in ("close", "reset"):
            leaves = house.connected()
            leaves.send(bytes(10_000))
            house.until(lambda: house.statistics.parked_now)
            getattr(leaves, go)()
            house.until(lambda: house.statistics.connections_open == 1)
        stays.send(b"ping")
        house.until(lambda: stays.received == b"PING")
        assert house.statistics.draining_now == house.statistics.parked_now == 0
    check_jobs()


def test_the_server_drains(module: Path, tmp_path: Path) -> None:
    apart.run(drains_in_the_server, module, tmp_path)


def ends(module: str, folder: str) -> None:
    """Close the engine with a connection open: it goes on, and what is new does without the engine."""
    identity = Certificates(Path(folder))["p256"]
    engine = OpenSSLEngine("dasync", module, algorithms="ALL")
    key = engine.load_key(identity.key.read_bytes())
    context = server_context(identity, key, SUITES)
    client = client_context(identity, "1.2", SUITES)
    with Pair(context, client, io=True) as pair:
        assert pair.finish() is Status.DONE
        engine.close()
        pair.client.send(b"ping")
        pair.flush_client()
        assert resumed(pair, pair.server.read_into, bytearray(100)) is Status.DONE
    with Pair(server_context(identity, key, SUITES), client, io=True) as pair:
        assert pair.finish() is Status.DONE
        assert pair.parks == 0
        assert pair.echo() == b"ping"
    check_jobs()


def test_closing(module: Path, tmp_path: Path) -> None:
    apart.run(ends, module, tmp_path)


def shares(module: str, folder: str) -> None:
    """Its RSA cannot sign: that shows whether it is the default."""
    rsa = Certificates(Path(folder))["rsa2048"].key.read_bytes()
    none, first, second = (OpenSSLEngine("dasync", module, algorithms=one) for one in (None, "ALL", "PKEY_CRYPTO"))
    for engine in (none, first, second):
        with pytest.raises(KeyLoadError, match=r"engine dasync is the default for RSA keys and cannot sign .*CIPHERS"):
            engine.load_key(rsa)
        engine.close()
        engine.close()
    with OpenSSLEngine("dasync", algorithms="CIPHERS,DIGESTS") as engine:
        assert engine.load_key(rsa).sign(b"data")


def test_the_last_user_takes_the_defaults_back(module: Path, tmp_path: Path) -> None:
    apart.run(shares, module, tmp_path)


def test_a_kind_of_key_that_it_cannot_sign_with(
    module: Path, certificates: Certificates, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = certificates["rsa2048"]
    arguments = [f"--offload=engine:dasync:{module}", f"--certfile={identity.cert}", f"--keyfile={identity.key}"]
    assert cli.run(["serve", "--port=0", *arguments]) == 2
    assert "make it the default for something else, as CIPHERS,DIGESTS" in capsys.readouterr().err
