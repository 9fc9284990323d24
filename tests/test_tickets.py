"""Ticket keys of contexts and servers: what a swap keeps, what time changes, what processes share, what is refused."""

from __future__ import annotations

import base64
import re
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest
from helpers_server import Echo, House
from helpers_web import Serving, serving

from engine_shim import ShimError, Status, TicketKeys
from engine_shim.server_context import set_session_context
from support.pair import Pair, client_context
from support.resumption import connect, left, meet
from tlsserver import ConfigurationError, Server, TLSContext, cli
from tlsserver.policy.ticket_source import RotatingKeys, TicketSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from OpenSSL import SSL

    from support.certificates import Identity
    from support.running import Clock

VERSIONS = ("1.2", "1.3")
LIFETIME = 7200.0


@pytest.fixture(params=VERSIONS)
def client(request: pytest.FixtureRequest, identity: Identity) -> SSL.Context:
    return client_context(identity, request.param)


def source_of(context: TLSContext) -> TicketSource:
    assert context._settings is not None
    assert isinstance(context._settings.ticket_keys, TicketSource)
    return context._settings.ticket_keys


def test_the_next_context_resumes_sessions_of_the_one_before(identity: Identity, client: SSL.Context) -> None:
    first = TLSContext(identity.cert, identity.key)
    session = meet(first.pyopenssl, client).session
    second = first.replace(min_version="1.2")
    del first
    assert meet(second.pyopenssl, client, session).reused
    assert not meet(second.replace(ticket_keys=None).pyopenssl, client, session).reused
    assert not meet(TLSContext(identity.cert, identity.key).pyopenssl, client, session).reused


def test_the_name_is_known_where_a_session_is_resumed(identity: Identity, client: SSL.Context) -> None:
    """OpenSSL keeps it with the session in TLS 1.3 only."""
    server, session = TLSContext(identity.cert, identity.key).pyopenssl, None
    for name in ("shop.test", "shop.test", "other.test", None):
        with Pair(server, client, offloaded=False) as pair:
            if session is not None:
                pair.client.set_session(session)
            if name is not None:
                pair.client.set_tlsext_host_name(name.encode())
            assert pair.until_parked() is Status.DONE
            pair.echo()
            assert (pair.server.settled().reused, pair.server.settled().server_name) == (session is not None, name)
            session = left(pair.client)


def test_a_suite_that_is_taken_away_is_not_brought_back_by_a_session(identity: Identity) -> None:
    first = TLSContext(identity.cert, identity.key, ciphers="ECDHE-ECDSA-AES128-SHA")
    second, same = first.replace(ciphers=None), first.replace(ciphers=" ECDHE-ECDSA-AES128-SHA ")
    client = client_context(identity, "1.2")
    client.set_cipher_list(b"ALL")
    session = meet(first.pyopenssl, client).session
    assert not meet(second.pyopenssl, client, session).reused
    assert meet(same.pyopenssl, client, session).reused


def test_another_policy_refuses_the_session_under_the_same_keys(identity: Identity, client: SSL.Context) -> None:
    first = TLSContext(identity.cert, identity.key)
    session = meet(first.pyopenssl, client).session
    second = first.replace()
    set_session_context(second.pyopenssl, b"another policy".ljust(32))
    assert not meet(second.pyopenssl, client, session).reused


def test_sessions_go_on_when_a_running_server_swaps(identity: Identity, client: SSL.Context) -> None:
    with Server(TLSContext(identity.cert, identity.key), Echo, port=0) as server:
        session = connect(server.address, client).session
        server.reload()
        again = connect(server.address, client, session)
        assert again.reused
        server.swap_context(TLSContext(identity.cert, identity.key))
        assert not connect(server.address, client, again.session).reused, "a context with keys of its own"


def test_keys_of_ones_own(identity: Identity, client: SSL.Context) -> None:
    keys = TicketKeys()
    contexts = [TLSContext(identity.cert, identity.key, ticket_keys=keys) for _ in range(2)]
    session = meet(contexts[0].pyopenssl, client).session
    assert meet(contexts[1].pyopenssl, client, session).reused
    assert contexts[0].keep_up(time.monotonic() + 1e9) is None
    assert len(keys.names) == 1


def test_a_context_of_pyopenssl_keeps_what_it_has(identity: Identity) -> None:
    context = TLSContext.from_pyopenssl(TLSContext(identity.cert, identity.key).pyopenssl)
    assert context.keep_up(time.monotonic()) is None


def test_no_files_are_no_keys(identity: Identity) -> None:
    with pytest.raises(ConfigurationError, match="there is no file: name one"):
        TLSContext(identity.cert, identity.key, ticket_keys=[])


# --- Time ---


@pytest.mark.parametrize("lifetime", [LIFETIME, 600.0])
def test_a_key_encrypts_half_a_lifetime_and_is_accepted_a_whole_one_after(lifetime: float) -> None:
    source = RotatingKeys()
    source.accept_for(LIFETIME)
    begin = source.keep_up(time.monotonic())  # from here on exact
    source.accept_for(lifetime)
    first_seen: dict[bytes, float] = {}
    last_first: dict[bytes, float] = {}
    last_seen: dict[bytes, float] = {}
    for step in range(100):
        now = begin + step * lifetime / 10
        source.keep_up(now)
        names = source.keys.names
        assert len(names) <= 3
        first_seen.setdefault(names[0], now)
        last_first[names[0]] = now
        last_seen.update(dict.fromkeys(names, now))
    middle = list(first_seen)[2:-3]
    assert len(middle) > 10
    for name in middle:
        assert last_first[name] - first_seen[name] < lifetime / 2
        # Until the step before it was dropped, and that was later than a lifetime after it was first.
        assert last_seen[name] + lifetime / 10 - last_first[name] >= lifetime


def test_a_process_that_slept_comes_to_the_same_key() -> None:
    """As one that was forked from it and did not: the chain goes as far as the time."""
    source = RotatingKeys()
    begin = source.keep_up(0)
    rotations: list[int] = []

    def note(keep: int) -> None:
        rotations.append(keep)

    source.keys.rotate = note  # type: ignore[method-assign]
    assert source.keep_up(begin + 10 * LIFETIME) > begin + 10 * LIFETIME
    assert rotations == [2] * 21


def test_keys_that_cannot_be_rotated_stay(caplog: pytest.LogCaptureFixture) -> None:
    def fail(keep: int) -> None:
        raise ShimError(f"no {keep} keys")

    source = RotatingKeys()
    due = source.keep_up(0)
    source.keys.rotate = fail  # type: ignore[method-assign]
    assert source.keep_up(due) > due
    assert [record.message for record in caplog.records] == [
        "ticket keys cannot be rotated, those before stay: no 2 keys"
    ]


def test_the_loop_rotates(identity: Identity, clock: Clock) -> None:
    with House(identity) as house:
        keys = source_of(house.server._context).keys  # type: ignore[arg-type]
        house.connected()
        names = keys.names
        for age in range(1, 5):
            clock.advance(LIFETIME / 2)
            house.until(lambda names=names: keys.names != names)  # type: ignore[misc]
            assert keys.names == (keys.names[0], *names)[:3], f"{age} periods"
            names = keys.names


def test_a_swapped_context_is_kept_up_in_its_turn(identity: Identity, clock: Clock) -> None:
    with House(identity) as house:
        house.connected()
        second = TLSContext(identity.cert, identity.key)
        house.server.swap_context(second)
        house.connected()
        names = source_of(second).keys.names
        clock.advance(LIFETIME / 2 + 1)
        house.until(lambda: source_of(second).keys.names != names)


# --- Processes that share a file ---


class Place:
    """A file of keys, and what serves with it."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self.file = folder / "tickets"
        self.identity = identity
        self.rotate()

    def rotate(self, keep: int = 2) -> None:
        assert cli.run(["gen-ticket-keys", str(self.file), f"--keep={keep}"]) == 0

    def arguments(self) -> tuple[str, ...]:
        certificate = ("--certfile", str(self.identity.cert), "--keyfile", str(self.identity.key))
        return (*certificate, f"--ssl-ticket-keys={self.file}", "--reload-interval=3600", "--offload=off")


@pytest.fixture
def place(tmp_path: Path, identity: Identity) -> Place:
    return Place(tmp_path, identity)


def reload(served: Serving) -> None:
    """Ask for it, and wait until it is said that it is done."""
    served.process.send_signal(signal.SIGHUP)
    assert served.process.stderr is not None
    assert any("are reloaded" in line and "certificates" in line for line in served.process.stderr)


def test_a_reload_keeps_the_keys_of_the_process(place: Place, identity: Identity) -> None:
    with serving(*(each for each in place.arguments() if "ticket" not in each)) as served:
        client, address = client_context(identity, "1.3"), ("127.0.0.1", served.port)
        session = connect(address, client).session
        reload(served)
        assert connect(address, client, session).reused


def test_no_handshake_fails_while_keys_change(identity: Identity, client: SSL.Context) -> None:
    keys, over = TicketKeys(), threading.Event()

    def rotate() -> None:
        while not over.is_set():
            keys.rotate(keep=2)

    changing = threading.Thread(target=rotate)
    context = TLSContext(identity.cert, identity.key, ticket_keys=keys)
    with Server(context, Echo, port=0) as server:
        changing.start()
        try:
            session = None
            for _ in range(40):
                session = connect(server.address, client, session).session
        finally:
            over.set()
            changing.join()
        assert server.statistics().handshakes_completed == 40


def test_two_processes_with_one_file(place: Place, identity: Identity) -> None:
    with serving(*place.arguments()) as one, serving(*place.arguments()) as two:
        addresses = [("127.0.0.1", served.port) for served in (one, two)]
        clients = [client_context(identity, version) for version in VERSIONS]
        firsts = [connect(addresses[0], client).session for client in clients]
        place.rotate()
        reload(two)
        seconds = []
        for client, first in zip(clients, firsts, strict=True):
            back = connect(addresses[1], client, first)
            assert back.reused, "an old key decrypts"
            seconds.append(back.session)
        place.rotate(keep=1)
        reload(one)
        for client, first, second in zip(clients, firsts, seconds, strict=True):
            assert not connect(addresses[0], client, first).reused, "its key is gone"
            assert connect(addresses[0], client, second).reused, "it was renewed"


def s_client(port: int, version: str, *arguments: str) -> str:
    """Ask for a page with the openssl command."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", f"-tls{version.replace('.', '_')}", *arguments],
        input="GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return done.stdout


def changed(session: str, name: bytes, position: int) -> str:
    """Change one bit in the ticket of a session in PEM, which begins with the key's name."""
    body = "".join(session.splitlines()[1:-1])
    der = bytearray(base64.b64decode(body))
    der[der.index(name) + position] ^= 1
    frame = "-----{} SSL SESSION PARAMETERS-----\n"
    return frame.format("BEGIN") + base64.encodebytes(der).decode() + frame.format("END")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_ticket_that_was_changed_is_a_full_handshake(place: Place, tmp_path: Path, version: str) -> None:
    session, forged = tmp_path / "session", tmp_path / "forged"
    with serving(*place.arguments()) as served:
        assert "New, TLSv" in s_client(served.port, version, "-ign_eof", "-sess_out", str(session))
        assert "Reused, TLSv" in s_client(served.port, version, "-ign_eof", "-sess_in", str(session))
        name = place.file.read_bytes()[:16]
        for position in (0, 16, 40, 100):  # the name, the IV, what is encrypted
            forged.write_text(changed(session.read_text(), name, position))
            answer = s_client(served.port, version, "-ign_eof", "-sess_in", str(forged))
            assert "New, TLSv" in answer, position
            assert "200 OK" in answer


def test_there_is_no_early_data(place: Place, tmp_path: Path) -> None:
    session, early = tmp_path / "session", tmp_path / "early"
    early.write_text("GET /early HTTP/1.1\r\nHost: localhost\r\n\r\n")
    with serving(*place.arguments()) as served:
        s_client(served.port, "1.3", "-ign_eof", "-sess_out", str(session))
        told = subprocess.run(
            ["openssl", "sess_id", "-in", str(session), "-noout", "-text"], capture_output=True, text=True, check=True
        ).stdout
        assert "Max Early Data: 0" in told
        answer = s_client(served.port, "1.3", "-ign_eof", "-sess_in", str(session), "-early_data", str(early))
        assert "Early data was not sent" in answer
        assert "Reused, TLSv1.3" in answer


def test_a_bad_file_of_keys_keeps_the_last_good_ones(place: Place, identity: Identity) -> None:
    """It does not hold up a certificate that is renewed with it."""
    with serving(*place.arguments()) as served:
        client = client_context(identity, "1.2")
        address = ("127.0.0.1", served.port)
        first = connect(address, client)
        place.file.write_bytes(b"no keys")
        served.process.send_signal(signal.SIGHUP)
        assert served.process.stderr is not None
        told = []
        for line in served.process.stderr:
            told.append(line)
            if "certificates and keys are reloaded" in line:
                break
        assert sum("the last good ticket keys stay: ticket keys" in line for line in told) == 1
        assert connect(address, client, first.session).reused
        served.process.send_signal(signal.SIGHUP)
        for line in served.process.stderr:
            assert "ticket keys stay" not in line
            if "certificates and keys are reloaded" in line:
                break


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda file: file.unlink(), "No such file or directory"),
        (lambda file: file.write_bytes(b"x" * 81), "the file has 81 bytes"),
        (lambda file: file.chmod(0o644), "everybody on this machine can read or write the file: chmod 600"),
    ],
)
def test_a_mistake_is_one_line(
    place: Place, capfd: pytest.CaptureFixture[str], break_it: Callable[[Path], object], message: str
) -> None:
    break_it(place.file)
    capfd.readouterr()
    assert cli.run(["serve", "--port=0", *place.arguments()]) == 2
    told = capfd.readouterr().err
    assert re.fullmatch(r"tlsserver: error: ticket keys [^\n]+\n", told), told
    assert message in told
