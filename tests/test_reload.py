"""Certificates that change under a running server: by request, by SIGHUP, by their files; and what goes wrong then."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import socket
import ssl
import time
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from helpers_server import PATIENCE, Echo, House, client_context

import engine_shim
from support.chains import issue, respond
from support.pair import server_context
from tlsserver import ClientCertificates, ConfigurationError, Reloader, Server, TLSContext

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.certificates import Certificates, Identity

pytestmark = pytest.mark.usefixtures("nothing_left")

INTERVAL = 0.01


class Place:
    """Where a certificate and its key lie, and a server that serves them."""

    def __init__(self, folder: Path, first: Identity, **options: Any) -> None:
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        self.ca = first.ca
        self.put(first)
        self.server = Server(TLSContext(self.cert, self.key, **options), Echo, port=0)

    def put(self, identity: Identity) -> None:
        """Replace both, the one after the other, as it is done: by a rename."""
        for source, target in ((identity.cert, self.cert), (identity.key, self.key)):
            shutil.copy(source, target.with_suffix(".new"))
            target.with_suffix(".new").rename(target)

    def connect(self) -> ssl.SSLSocket:
        sock = socket.create_connection(self.server.address, PATIENCE)
        made: ssl.SSLSocket = client_context(self.ca).wrap_socket(sock, server_hostname="localhost")
        return made

    def served(self) -> bytes | None:
        """Return the certificate that a new client gets."""
        with self.connect() as client:
            return client.getpeercert(binary_form=True)

    def until_served(self, identity: Identity) -> None:
        wanted = der(identity)
        until(lambda: self.served() == wanted)


def der(identity: Identity) -> bytes:
    return ssl.PEM_cert_to_DER_cert(identity.cert.read_text())


def until(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, "nothing came of it"


@pytest.fixture
def first(certificates: Certificates) -> Identity:
    return certificates["p256"]


@pytest.fixture
def second(certificates: Certificates) -> Identity:
    return certificates["rsa2048"]


def test_a_reload_is_for_new_connections(tmp_path: Path, first: Identity, second: Identity) -> None:
    place = Place(tmp_path, first)
    with place.server as server, place.connect() as old:
        place.put(second)
        assert place.served() == der(first), "nobody has asked for a reload"
        server.reload()
        assert place.served() == der(second)
        old.sendall(b"still here")
        assert old.recv(64) == b"STILL HERE"


def test_a_key_in_an_engine_is_loaded_anew(tmp_path: Path, first: Identity, second: Identity) -> None:
    with engine_shim.ThreadEngine(1) as engine:
        place = Place(tmp_path, first, engine=engine)
        with place.server as server:
            assert place.served() == der(first)
            place.put(second)
            server.reload()
            assert place.served() == der(second)
            assert engine.statistics().performed == 2


def test_a_parked_handshake_keeps_what_it_began_with(first: Identity, second: Identity) -> None:
    with engine_shim.ManualEngine() as engine, House(first, engine) as house:
        client = house.client()
        house.until(lambda: engine.pending)
        house.server.swap_context(TLSContext(second.cert, second.key))
        house.finish(engine)
        assert client.tls.getpeercert(binary_form=True) == der(first)
        assert house.connected().tls.getpeercert(binary_form=True) == der(second)


def test_files_that_change_are_loaded(tmp_path: Path, first: Identity, second: Identity) -> None:
    place = Place(tmp_path, first)
    with place.server, Reloader(place.server, interval=INTERVAL):
        for identity in (second, first, second):
            place.put(identity)
            place.until_served(identity)


def test_files_that_come_into_a_folder_are_looked_at_from_then_on(tmp_path: Path, first: Identity) -> None:
    folder = tmp_path / "authorities"
    folder.mkdir()
    shutil.copy(first.ca, folder / "a.pem")
    place = Place(tmp_path, first, client_certificates=ClientCertificates("optional", ca_path=folder))

    def trusts(count: int) -> bool:
        settings: Any = getattr(place.server._context, "_settings", None)
        return len(settings.client_trust.authorities) == count

    with place.server as server, Reloader(server, interval=INTERVAL):
        (folder / "b.pem").write_bytes(issue("one", ca=True).pem)
        until(lambda: trusts(2))
        # In its place: the folder does not change.
        (folder / "b.pem").write_bytes(issue("two", ca=True).pem + issue("three", ca=True).pem)
        until(lambda: trusts(3))


def test_links_that_are_swapped(tmp_path: Path, first: Identity, second: Identity) -> None:
    """As Kubernetes does it: the names lead through ``..data`` to a folder, and that link is replaced by a rename."""
    for name, identity in (("1", first), ("2", second)):
        (tmp_path / name).mkdir()
        shutil.copy(identity.cert, tmp_path / name / "tls.crt")
        shutil.copy(identity.key, tmp_path / name / "tls.key")
    (tmp_path / "..data").symlink_to("1")
    for file in ("tls.crt", "tls.key"):
        (tmp_path / file).symlink_to(f"..data/{file}")
    place = Place(tmp_path, first)
    place.server.swap_context(TLSContext(tmp_path / "tls.crt", tmp_path / "tls.key"))
    with place.server, Reloader(place.server, interval=INTERVAL):
        (tmp_path / "..new").symlink_to("2")
        (tmp_path / "..new").rename(tmp_path / "..data")
        place.until_served(second)


def test_what_cannot_be_loaded_changes_nothing_and_is_said_once(
    tmp_path: Path, first: Identity, second: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place(tmp_path, first)
    with place.server, caplog.at_level(logging.ERROR), Reloader(place.server, interval=INTERVAL) as reloader:
        shutil.copy(second.cert, place.cert)
        until(lambda: "reload failed" in caplog.text)
        looks = _count_looks(reloader)
        until(lambda: len(looks) > 10)
        assert caplog.text.count("reload failed, the last good certificates stay") == 1
        assert place.served() == der(first)
        shutil.copy(second.key, place.key)
        place.until_served(second)
        place.cert.unlink()
        until(lambda: caplog.text.count("reload failed") == 2)
        assert "No such file or directory" in caplog.text
        assert "Traceback" not in caplog.text
        assert place.served() == der(second)


def _count_looks(reloader: Reloader) -> list[None]:
    looks: list[None] = []
    look = reloader._look

    def counted() -> Any:
        looks.append(None)
        return look()

    reloader._look = counted  # type: ignore[method-assign]
    return looks


def test_sighup_reloads_and_the_handler_before_comes_back(tmp_path: Path, first: Identity, second: Identity) -> None:
    before = signal.getsignal(signal.SIGHUP)
    place = Place(tmp_path, first)
    with place.server:
        with Reloader(place.server, interval=3600):
            place.put(second)
            os.kill(os.getpid(), signal.SIGHUP)
            place.until_served(second)
        assert signal.getsignal(signal.SIGHUP) == before


def test_a_maker_of_ones_own_and_one_that_fails(
    tmp_path: Path, first: Identity, second: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    contexts = [TLSContext(second.cert, second.key)]
    place = Place(tmp_path, first)
    with place.server, Reloader(place.server, make=contexts.pop, files=[], interval=3600) as reloader:
        reloader.request()
        place.until_served(second)
        reloader.request()
        until(lambda: "IndexError: pop from empty list" in caplog.text)
        assert place.served() == der(second)


def test_the_contexts_before_are_freed(tmp_path: Path, first: Identity) -> None:
    place = Place(tmp_path, first)
    with place.server as server:
        contexts = []
        for _ in range(20):
            contexts.append(weakref.ref(server._context))
            server.reload()
            assert place.served() == der(first)
        gc.collect()
        assert sum(one() is not None for one in contexts) <= 1, "the last one is the next connection's to replace"


def test_what_cannot_be_reloaded(first: Identity) -> None:
    server = Server(TLSContext.from_pyopenssl(server_context(first, None)), Echo, port=0)
    with pytest.raises(ConfigurationError, match="made by from_pyopenssl"):
        server.reload()
    with pytest.raises(ConfigurationError, match="names no files: say which to look at"):
        Reloader(server)
    with pytest.raises(ConfigurationError, match="reload interval of 0 s cannot work"):
        Reloader(server, files=[], interval=0)


def test_two_engines_for_one_key(certificates: Certificates) -> None:
    identity = certificates["p256"]
    with engine_shim.ManualEngine() as one, engine_shim.ThreadEngine(1) as other:
        key = one.load_key(identity.key)
        assert TLSContext(identity.cert, key, engine=one).engine is one
        with pytest.raises(ConfigurationError, match="is in engine manual, and the engine threads is given as well"):
            TLSContext(identity.cert, key, engine=other)


# --- What becomes over while nobody reloads ---


def test_what_is_over_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = time.time()
    root = issue("root", ca=True)
    leaf = issue("localhost", root, days=(-1, 2))
    certificate, key = leaf.write(tmp_path, root)
    (tmp_path / "staple").write_bytes(respond(leaf, root, days=(-1, 1)))
    server = Server(TLSContext(certificate, key, ocsp_staple=tmp_path / "staple"), Echo, port=0)
    clock = SimpleNamespace(time=lambda: now)
    monkeypatch.setattr("tlsserver.reload.time", clock)
    reloader = Reloader(server)
    day = 86_400
    said: list[list[str]] = []
    for later in (0.9, 1.1, 1.5, 2.1, 3):
        clock.time = lambda at=now + later * day: at
        caplog.clear()
        reloader._tell_what_is_over()
        said.append([record.getMessage()[:24] for record in caplog.records])
    assert said == [[], ["the OCSP response is too"], [], ["a certificate that is se"], []]
    assert server.statistics().ocsp_expires == pytest.approx(now + day, abs=60)
    server.stop()
