"""Unix sockets of the key server: binding, rights, credentials, and a stream with the ends that it can have."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from support import keyless_client as keyless
from support.keyless_client import KeylessClient
from support.keyserver_scene import made, serving
from tlsserver.errors import AddressError, ConfigurationError
from tlsserver.reactor import Reactor
from tlsserver.signers.keyserver_access import Allowed, LocalPeer, group_id, user_id
from tlsserver.signers.keyserver_local import LocalSocket, adopt
from tlsserver.signers.keyserver_stream import StreamTransport

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.certificates import Certificates

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
NOBODY = 65534

# Asks for a pong as another user: it prints what came, or that nothing did.
ASK = """
import os, socket, sys
path, uid, gid, groups = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
sock = socket.socket(socket.AF_UNIX)
os.setgroups([int(one) for one in groups.split(",") if one]), os.setgid(gid), os.setuid(uid)
try:
    sock.connect(path)
    sock.sendall(bytes.fromhex("0100000700000001") + bytes.fromhex("110001f1120000"))
    print(sock.recv(100).hex() or "closed")
except OSError as error:
    print(type(error).__name__)
"""


def asked_as(path: Path, uid: int, gid: int, *groups: int) -> str:
    listed = ",".join(map(str, groups))
    command = [sys.executable, "-c", ASK, str(path), str(uid), str(gid), listed]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[LocalSocket]:
    found = LocalSocket(tmp_path / "s")
    yield found
    found.socket.close()
    found.remove()


# --- The socket and its file ---


def test_rights_of_the_file(bound: LocalSocket, tmp_path: Path) -> None:
    assert stat.S_IMODE(bound.path.stat().st_mode) == 0o600
    other = LocalSocket(tmp_path / "group", group=os.getgid())
    assert stat.S_IMODE(other.path.stat().st_mode) == 0o660
    assert other.path.stat().st_gid == os.getgid()
    other.socket.close()
    other.remove()
    assert not other.path.exists()


def test_nobody_else_listens_there(bound: LocalSocket) -> None:
    with pytest.raises(AddressError, match="somebody listens there"):
        LocalSocket(bound.path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(bound.path))  # it was not harmed


def test_stale_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    stale = LocalSocket(path)
    stale.socket.close()
    fresh = LocalSocket(path)
    stale.remove()  # it is not its file any more
    assert path.exists()
    fresh.socket.close()
    fresh.remove()
    fresh.remove()
    assert not path.exists()


def test_files_that_are_no_sockets_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(AddressError, match="a file that is no socket"):
        LocalSocket(path)
    assert path.read_text() == "data"


@pytest.mark.parametrize(("name", "why"), [("missing/s", "no such folder"), ("x" * 120, "too long")])
def test_paths_that_cannot_be(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(AddressError, match=why) as caught:
        LocalSocket(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_adopting() -> None:
    ours, theirs = socket.socketpair()
    with theirs, adopt(ours.detach()) as adopted:
        assert not adopted.getblocking()
        assert not adopted.get_inheritable()
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as alone:
        for one in (tcp, alone):
            with pytest.raises(AddressError, match="no connected Unix stream socket"):
                adopt(one.fileno())
            one.getsockname()  # it is still open
    with pytest.raises(AddressError, match="no open socket"):
        adopt(10**6)


# --- Who may come in ---


def test_own_user_by_default(tmp_path: Path, certificates: Certificates) -> None:
    with serving(tmp_path, [certificates["p256"].key]) as scene, scene.client() as client:
        assert client.ask(keyless.PING).opcode == keyless.PONG


@pytest.mark.usefixtures("nobodys_way")
@pytest.mark.parametrize(
    ("allow", "groups", "may"),
    [
        ("", (NOBODY,), False),
        ("uid:65534", (NOBODY,), True),
        ("uid:nobody", (NOBODY,), True),
        ("uid:65533", (NOBODY,), False),
        ("gid:4711", (NOBODY,), False),
        ("gid:4711", (4711,), True),
        ("gid:4711", (NOBODY, 4710, 4711), True),
        ("uid:65533 gid:4711", (NOBODY, 4711), True),
    ],
    ids=str,
)
@ROOT_ONLY
def test_others_by_the_kernels_word(
    tmp_path: Path, certificates: Certificates, allow: str, groups: tuple[int, ...], may: bool
) -> None:
    with serving(tmp_path, [certificates["p256"].key], allowed=Allowed.parse(allow.split())) as scene:
        scene.path.chmod(0o666)  # it is the credentials that are tested here
        said = asked_as(scene.path, NOBODY, *groups)
        assert said.startswith("01000007") if may else said in ("closed", "ConnectionResetError", "BrokenPipeError")


@pytest.fixture
def nobodys_way(tmp_path: Path) -> Iterator[None]:
    """Let others into the test's folder, which only its owner may enter."""
    ways = [folder for folder in (tmp_path, *tmp_path.parents) if folder.stat().st_uid == os.geteuid()]
    modes = {folder: stat.S_IMODE(folder.stat().st_mode) for folder in ways if folder.stat().st_mode & 0o011 != 0o011}
    for folder, mode in modes.items():
        folder.chmod(mode | 0o011)
    yield
    for folder, mode in modes.items():
        folder.chmod(mode)


@pytest.mark.usefixtures("nobodys_way")
@ROOT_ONLY
def test_file_keeps_others_out(tmp_path: Path, certificates: Certificates) -> None:
    with serving(tmp_path, [certificates["p256"].key], allowed=Allowed.parse(["uid:65534"])) as scene:
        assert asked_as(scene.path, NOBODY, NOBODY) == "PermissionError"


def test_refused_client_is_told_of(
    tmp_path: Path, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    allowed = Allowed.parse([f"uid:{os.geteuid() + 1}"])
    with serving(tmp_path, [certificates["p256"].key], allowed=allowed) as scene, scene.client() as client:
        client.socket.sendall(keyless.request(1, keyless.PING))
        assert client.answer() is None
    assert f"a client that no --allow names is refused: LocalPeer(uid={os.geteuid()}" in caplog.text


def test_peer_in_many_groups() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = LocalPeer.of(ours)
    assert found.uid == os.geteuid()
    assert os.getegid() in found.groups
    assert set(os.getgroups()) <= found.groups


def test_names_of_users_and_groups() -> None:
    assert (user_id("root"), user_id("17"), group_id("root"), group_id("17")) == (0, 17, 0, 17)
    for text in ("uid:no-such-user", "gid:no-such-group", "uid:", "", "gid:"):
        with pytest.raises(ConfigurationError, match=r"give (a name|uid)"):
            Allowed.parse([text])
    allowed = Allowed.parse(["uid:0", "gid:0", "Front.Example", "spiffe://example/Front"])
    assert allowed.names == {"front.example", "spiffe://example/Front"}
    assert allowed.is_of_this_machine


# --- The stream ---


class Recorder(asyncio.Protocol):
    """Keeps what it is told, and fails where it is told to."""

    def __init__(self, fails: str = "") -> None:
        self.told: list[Any] = []
        self._fails = fails

    def _tell(self, name: str, *what: Any) -> None:
        self.told.append((name, *what))
        if name == self._fails:
            raise ZeroDivisionError

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._tell("made")

    def data_received(self, data: bytes) -> None:
        self._tell("data", data)

    def eof_received(self) -> bool:
        self._tell("eof")
        return True

    def pause_writing(self) -> None:
        self._tell("pause")

    def resume_writing(self) -> None:
        self._tell("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self._tell("lost", exc)


class Stream:
    """A transport whose loop the test turns."""

    def __init__(self, fails: str = "") -> None:
        self.reactor = Reactor()
        ours, self.far = socket.socketpair()
        ours.setblocking(False)
        self.closed: list[StreamTransport] = []
        self.protocol = Recorder(fails)
        self.transport = StreamTransport(
            self.reactor, ours, self.protocol, facts={"client": "me"}, on_closed=self.closed.append
        )

    def turn(self) -> list[Any]:
        self.reactor.run_turn(0.05)
        return self.protocol.told

    def turn_until(self, condition: Any) -> None:
        for _ in range(1000):
            if condition():
                return
            self.turn()
        pytest.fail("it never came to that")

    def read(self, size: int) -> bytes:
        got = b""
        self.far.setblocking(False)
        while len(got) < size:
            got += self._read_some(size - len(got))
        return got

    def _read_some(self, size: int) -> bytes:
        try:
            return self.far.recv(size)
        except BlockingIOError:
            self.turn()
            return b""


@pytest.fixture
def stream() -> Iterator[Stream]:
    made_stream = Stream()
    yield made_stream
    made_stream.transport.abort()
    made_stream.turn()
    made_stream.far.close()
    made_stream.reactor.close()


def test_reading_and_writing(stream: Stream) -> None:
    stream.far.sendall(b"hello")
    assert stream.turn() == [("made",), ("data", b"hello")]
    stream.transport.write(b"")
    stream.transport.write(memoryview(b"world"))
    assert stream.far.recv(10) == b"world"
    assert stream.transport.get_extra_info("client") == "me"
    assert stream.transport.get_protocol() is stream.protocol


def test_pausing_reading(stream: Stream) -> None:
    stream.transport.pause_reading()
    stream.transport.pause_reading()
    stream.far.sendall(b"later")
    assert stream.turn() == [("made",)]
    assert not stream.transport.is_reading()
    stream.transport.resume_reading()
    assert stream.turn()[1:] == [("data", b"later")]


def test_peer_that_reads_slowly(stream: Stream) -> None:
    data = os.urandom(1 << 20)
    stream.transport.write(data)
    assert stream.protocol.told[-1] == ("pause",)
    stream.transport.write(b"more")
    assert stream.read(len(data) + 4) == data + b"more"
    stream.turn_until(lambda: stream.protocol.told[-1] == ("resume",))
    assert stream.protocol.told.count(("pause",)) == 1
    assert stream.transport.get_write_buffer_size() == 0


def test_closing_sends_what_is_left(stream: Stream) -> None:
    data = bytes(1 << 20)
    stream.transport.write(data)
    stream.transport.close()
    stream.transport.close()
    stream.transport.write(b"dropped")
    assert stream.read(len(data)) == data
    stream.turn_until(lambda: stream.closed)
    assert stream.protocol.told[-1] == ("lost", None)
    assert stream.far.recv(1) == b""


def test_closing_does_not_wait_for_ever(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlsserver.signers.keyserver_stream._LINGER", 0.0)
    stream.transport.write(bytes(1 << 20))
    stream.transport.close()
    stream.turn_until(lambda: stream.closed)
    assert stream.protocol.told[-1] == ("lost", None)


def test_half_closed_peer_still_reads(stream: Stream) -> None:
    stream.far.sendall(b"last")
    stream.far.shutdown(socket.SHUT_WR)
    stream.turn_until(lambda: ("eof",) in stream.protocol.told)
    stream.transport.write(b"answer")
    stream.transport.resume_reading()
    assert stream.far.recv(10) == b"answer"
    assert not stream.closed


def test_peer_that_is_gone(stream: Stream) -> None:
    stream.far.close()
    stream.turn_until(lambda: stream.closed)
    assert stream.protocol.told == [("made",), ("lost", None)]
    assert stream.transport.is_closing()


def test_peer_that_goes_while_we_write(stream: Stream) -> None:
    stream.transport.pause_reading()
    stream.far.close()
    stream.transport.write(b"to nobody")
    stream.turn_until(lambda: stream.closed)
    assert isinstance(stream.protocol.told[-1][1], BrokenPipeError)


@pytest.mark.parametrize("method", ["made", "data", "lost"])
def test_protocol_that_fails(method: str, caplog: pytest.LogCaptureFixture) -> None:
    stream = Stream(method)
    stream.far.sendall(b"x")
    stream.turn()
    stream.transport.close()
    stream.turn_until(lambda: stream.closed)
    assert "a protocol failed" in caplog.text
    assert stream.protocol.told[-1][0] == "lost"
    stream.far.close()
    stream.reactor.close()


def test_connections_have_a_bound(tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlsserver.signers.keyserver_local._CONNECTIONS_MOST", 2)
    with serving(tmp_path, [certificates["p256"].key]) as scene:
        one, two, three = (scene.client() for _ in range(3))
        for client in (one, two):
            assert client.ask(keyless.PING).opcode == keyless.PONG
        three.send(keyless.request(1, keyless.PING))
        assert scene.server.statistics().connections == 2
        one.socket.close()
        assert three.answer() is not None  # its turn has come
        two.socket.close()
        three.socket.close()


def test_a_server_that_never_runs(tmp_path: Path, certificates: Certificates) -> None:
    bound = LocalSocket(tmp_path / "s")
    with made(tmp_path, [certificates["p256"].key]) as scene:
        scene.server.serve_local(listening=bound.socket)
    assert bound.socket.fileno() == -1
    bound.remove()


def test_client_helper_is_refused_where_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        KeylessClient.local(tmp_path / "s")
