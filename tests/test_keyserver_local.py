"""Unix sockets of the key server: binding, rights, credentials, and a stream with the ends that it can have."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from support import keyless_client as keyless
from support.keyless_client import KeylessClient
from support.keyserver_scene import NOBODY, asked_as, made, public_folder, serving
from tlsserver.errors import AddressError, ConfigurationError
from tlsserver.signers.keyserver_access import Allowed, LocalPeer, group_id, user_id
from tlsserver.signers.keyserver_local import LocalSocket, adopt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.certificates import Certificates

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


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


@pytest.mark.parametrize("group", [None, os.getegid()], ids=["owner", "group"])
def test_folder_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int | None) -> None:
    """Who puts a link in the file's place does not get the rights of what it points to."""
    path, precious = tmp_path / "s", tmp_path / "precious"
    precious.write_text("data")
    precious.chmod(0o640)
    before = precious.stat()

    def swap(_: Path) -> tuple[int, int, int]:  # in between binding and giving away
        path.unlink()
        path.symlink_to(precious)
        return 0, 0, 0

    monkeypatch.setattr("tlsserver.signers.keyserver_local._identity", swap)
    LocalSocket(path, group=group, owner=os.geteuid()).socket.close()
    after = precious.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ctime_ns == before.st_ctime_ns  # nobody has even tried


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
    public: Path, certificates: Certificates, allow: str, groups: tuple[int, ...], may: bool
) -> None:
    with serving(public, [certificates["p256"].key], allowed=Allowed.parse(allow.split())) as scene:
        scene.path.chmod(0o666)  # it is the credentials that are tested here
        said = asked_as(scene.path, NOBODY, *groups)
        assert said.startswith("01000007") if may else said in ("closed", "ConnectionResetError", "BrokenPipeError")


@pytest.fixture
def public() -> Iterator[Path]:
    with public_folder() as folder:
        yield folder


@ROOT_ONLY
def test_file_keeps_others_out(public: Path, certificates: Certificates) -> None:
    with serving(public, [certificates["p256"].key], allowed=Allowed.parse(["uid:65534"])) as scene:
        assert asked_as(scene.path, NOBODY, NOBODY) == "PermissionError"


def test_refused_client_is_told_of(
    tmp_path: Path, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    allowed = Allowed.parse([f"uid:{os.geteuid() + 1}"])
    with serving(tmp_path, [certificates["p256"].key], allowed=allowed) as scene, scene.client() as client:
        with contextlib.suppress(BrokenPipeError):  # it may be closed already
            client.send(keyless.request(1, keyless.PING))
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
    for text in ("uid:4294967295", "gid:4294967295", "uid:99999999999"):  # -1 is "nobody changes" to the kernel
        with pytest.raises(ConfigurationError, match="the last one is 4294967294"):
            Allowed.parse([text])
    allowed = Allowed.parse(["uid:0", "gid:0", "Front.Example", "spiffe://example/Front"])
    assert allowed.names == {"front.example", "spiffe://example/Front"}
    assert allowed.is_of_this_machine


# --- Connections ---


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
