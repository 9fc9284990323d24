"""TLS to a key server: who is refused, whose key it is, and which settings cannot work."""

from __future__ import annotations

import dataclasses
import errno
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from OpenSSL._util import lib

from engine_shim import KeyMismatchError, Status, ThreadEngine
from support.key_server import KeyServer, server_tls
from support.remote_scene import Scene
from tlsserver.errors import ConfigurationError
from tlsserver.signers import remote_tls
from tlsserver.signers.remote import ClientTLS, RemoteSigner
from tlsserver.signers.remote_address import parse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.certificates import Certificates
    from support.client_scene import House

pytestmark = pytest.mark.usefixtures("nothing_left")

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def client(house: House, certificates: Certificates, **changes: Any) -> ClientTLS:
    return dataclasses.replace(ClientTLS(house.good.cert, house.good.key, certificates.ca.ca), **changes)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_clients_key_in_an_engine(certificates: Certificates, house: House, version: str) -> None:
    identity = certificates["p256"]
    context = server_tls(identity, house.root.cert, VERSIONS[version])
    with ThreadEngine(1) as threads, KeyServer([identity], tls=context) as server:
        tls = client(house, certificates, key=threads.load_key(house.good.key))
        with Scene(identity, [server.address], tls=tls) as scene:
            scene.handshake()
        assert threads.statistics().performed == 1
        # Leaving while it signs.
        with Scene(identity, [server.address], tls=tls) as scene:
            for _ in range(10):
                scene.reactor.run_turn(0)


@pytest.mark.parametrize("version", VERSIONS)
def test_stranger_is_refused_by_the_key_server(
    certificates: Certificates, house: House, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    """In TLS 1.3 the client learns of it after its handshake; it was not up before."""
    identity = certificates["p256"]
    with KeyServer([identity], tls=server_tls(identity, house.root.cert, VERSIONS[version])) as server:
        tls = client(house, certificates, certificate=house.unknown.cert, key=house.unknown.key)
        with Scene(identity, [server.address], tls=tls, deadline=0.5) as scene:
            assert scene.end(scene.begin()) is Status.ERROR
            assert scene.numbers().taken == 0
            assert scene.numbers().state == "down"
    assert f"signer {server.address}: " in caplog.text
    assert [record for record in caplog.records if record.exc_info] == []


REFUSED: dict[str, tuple[Callable[[House, Certificates], dict[str, Any]], str]] = {
    "authority": (lambda house, _: {"ca": house.stranger.cert}, "its certificate is refused"),
    "name": (lambda _, __: {"server_name": "elsewhere.test"}, "its certificate is refused (hostname mismatch)"),
    "address": (lambda _, __: {"server_name": "192.0.2.1"}, "its certificate is refused (IP address mismatch)"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_key_server_is_refused(
    certificates: Certificates, house: House, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    identity = certificates["p256"]
    changes, expected = REFUSED[what]
    with KeyServer([identity], tls=server_tls(identity, house.root.cert)) as server:
        tls = client(house, certificates, **changes(house, certificates))
        with Scene(identity, [server.address], tls=tls) as scene:
            scene.until(lambda: scene.numbers().state == "down")
        assert not server.requests
    assert expected.lower() in caplog.text.lower()


def test_address_of_the_certificate(certificates: Certificates, house: House) -> None:
    identity = certificates["p256"]
    with KeyServer([identity], tls=server_tls(identity, house.root.cert)) as server:
        tls = client(house, certificates)
        with Scene(identity, [server.address.replace("localhost", "127.0.0.1")], tls=tls) as scene:
            scene.handshake()


def test_key_server_without_tls(certificates: Certificates, house: House, tmp_path: Path) -> None:
    identity = certificates["p256"]
    tls = client(house, certificates, server_name="localhost")
    with KeyServer([identity], tmp_path / "s") as server:
        address = server.address.replace("unix:", "unix+tls:")
        with Scene(identity, [address], tls=tls, connect_timeout=0.1) as scene:
            scene.until(lambda: scene.numbers().state == "down")


def test_handshake_that_does_not_end(
    certificates: Certificates, house: House, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"localhost:{silent.getsockname()[1]}"
        with Scene(certificates["p256"], [address], tls=client(house, certificates), connect_timeout=0.05) as scene:
            scene.until(lambda: scene.numbers().state == "down")
    assert "it cannot be reached: no TLS handshake in time" in caplog.text


def test_large_batches_in_tls(certificates: Certificates, house: House) -> None:
    identity = certificates["p256"]
    with (
        KeyServer([identity], tls=server_tls(identity, house.root.cert)) as server,
        Scene(identity, [server.address], tls=client(house, certificates)) as scene,
    ):
        scene.until_up()
        pairs = [scene.begin() for _ in range(60)]
        assert [scene.end(pair) for pair in pairs] == [Status.DONE] * 60
    assert all(len(message.ski) == 20 for message in server.requests)


def test_without_tls_settings() -> None:
    with pytest.raises(ConfigurationError, match="signer localhost:1 is reached by TLS: give a client certificate"):
        RemoteSigner(["localhost:1"])


def test_name_is_missing(certificates: Certificates, house: House) -> None:
    with pytest.raises(ConfigurationError, match="give the name of its certificate as well"):
        RemoteSigner(["unix+tls:/run/s"], tls=client(house, certificates))


@pytest.mark.parametrize("field", ["certificate", "key", "ca"])
def test_file_that_is_missing(certificates: Certificates, house: House, tmp_path: Path, field: str) -> None:
    with pytest.raises(ConfigurationError, match="nothing: No such file or directory"):
        RemoteSigner(["localhost:1"], tls=client(house, certificates, **{field: tmp_path / "nothing"}))


@pytest.mark.parametrize("field", ["certificate", "ca"])
def test_file_that_is_none(certificates: Certificates, house: House, tmp_path: Path, field: str) -> None:
    (tmp_path / "rubbish").write_bytes(b"rubbish")
    with pytest.raises(ConfigurationError, match=r"rubbish.*give a PEM file"):
        RemoteSigner(["localhost:1"], tls=client(house, certificates, **{field: tmp_path / "rubbish"}))


def test_key_of_another_certificate(certificates: Certificates, house: House) -> None:
    with pytest.raises(KeyMismatchError):
        RemoteSigner(["localhost:1"], tls=client(house, certificates, key=house.other.key))


@pytest.mark.parametrize("name", ["x" * 64 + ".test", "a\0b"])
def test_name_that_is_none(certificates: Certificates, house: House, name: str) -> None:
    with pytest.raises(ConfigurationError):
        RemoteSigner(["localhost:1"], tls=client(house, certificates, server_name=name))


def test_key_that_cannot_be_cancelled(
    certificates: Certificates, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the engine were a third party's, whose jobs go on without their connections."""
    monkeypatch.setattr(remote_tls, "NativeEngine", RemoteSigner)
    with ThreadEngine(1) as threads:
        tls = client(house, certificates, key=threads.load_key(house.good.key))
        with pytest.raises(ConfigurationError, match="in engine threads cannot be cancelled: give its file"):
            RemoteSigner(["localhost:1"], tls=tls)


def test_settings_do_not_show_the_password(certificates: Certificates, house: House) -> None:
    assert "sesame" not in repr(client(house, certificates, password="sesame"))  # noqa: S106 - the test's own


def test_records_without_data_do_not_hold_the_loop(certificates: Certificates, house: House) -> None:
    """SSL_CTX_set_mode(3): with SSL_MODE_AUTO_RETRY, one read takes as many key updates and tickets as come."""
    client_of = remote_tls.TLSClient(client(house, certificates), parse("localhost:1"))
    modes = lib.SSL_CTX_set_mode(client_of._context._context, 0)
    assert not modes & lib.SSL_MODE_AUTO_RETRY


def test_connection_that_cannot_be_used_is_tried_again(
    certificates: Certificates, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = certificates["p256"]
    calls = iter([MemoryError("no memory"), OSError(errno.ENOSPC, "No space left on device")])
    channel = remote_tls.TLSClient.channel

    def scarce(self: remote_tls.TLSClient, sock: socket.socket) -> object:
        for error in calls:
            raise error
        return channel(self, sock)

    monkeypatch.setattr(remote_tls.TLSClient, "channel", scarce)
    with (
        KeyServer([identity], tls=server_tls(identity, house.root.cert)) as server,
        Scene(identity, [server.address], tls=client(house, certificates)) as scene,
    ):
        scene.handshake()
