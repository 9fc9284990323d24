"""Ticket keys in a real Redis: shared, rotated once, and kept while it is away."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from helpers_web import serving

from support import leaks
from support.pair import client_context
from support.resumption import connect, meet
from tlsserver import ConfigurationError, TLSContext
from tlsserver.policy import ticket_redis
from tlsserver.policy.ticket_redis import RedisKeys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Identity

redis = pytest.importorskip("redis")
SERVER = shutil.which("redis-server")
pytestmark = [
    pytest.mark.skipif(SERVER is None, reason="redis-server is not installed"),
    pytest.mark.usefixtures("no_leaks"),
]

DOCUMENT = Path(__file__).parents[1] / "docs" / "session-tickets.md"
PASSWORD = "open sesame"  # noqa: S105 - of a server made here
LIST = "tlsserver:ticket-keys"
VERSIONS = ("1.2", "1.3")
NEVER = 3600.0  # the thread looks once; the test does the rest
PERIOD = 3600
SPREAD = 6 * int(NEVER)


class Redis:
    """A server on a port of the loopback, all of it in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"redis://:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[str] | None = None

    def start(self, *arguments: str) -> None:
        where = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), *arguments]
        settings = ["--save", "", "--appendonly", "no", "--requirepass", PASSWORD]
        assert SERVER is not None
        self.process = subprocess.Popen([SERVER, *where, *settings], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert any("Ready to accept connections" in line for line in self.process.stdout)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        with contextlib.closing(redis.Redis.from_url(self.url)) as client:
            yield client

    def put(self, *ages: int) -> list[bytes]:
        """Replace the list by keys of these ages in seconds; return their names."""
        with self.client() as client:
            now = client.time()[0]
            keys = [os.urandom(80) for _ in ages]
            client.delete(LIST)
            for age, key in zip(ages, keys, strict=True):
                client.rpush(LIST, struct.pack(">Q80s", now - age, key))
        return [key[:16] for key in keys]

    def names(self) -> list[bytes]:
        with self.client() as client:
            return [entry[8:24] for entry in client.lrange(LIST, 0, -1)]


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Redis]:
    made = Redis(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def store(stopped: Redis) -> Redis:
    stopped.start()
    return stopped


@contextlib.contextmanager
def keys_of(url: str) -> Iterator[RedisKeys]:
    source = RedisKeys(url, interval=NEVER)
    try:
        yield source
    finally:
        source.close()


def look(source: RedisKeys) -> tuple[bytes, ...]:
    """Look now, in the place of the thread, which has to wait."""
    source._fetcher._look()
    return source.keys.names


@pytest.mark.parametrize("version", VERSIONS)
def test_servers_share_their_sessions(store: Redis, identity: Identity, version: str) -> None:
    client = client_context(identity, version)
    with keys_of(store.url) as one, keys_of(store.url) as two:
        contexts = [TLSContext(identity.cert, identity.key, ticket_keys=source) for source in (one, two)]
        session = meet(contexts[0].pyopenssl, client).session
        assert meet(contexts[1].pyopenssl, client, session).reused


def test_all_who_start_at_once_make_one_key(store: Redis) -> None:
    barrier, seen = threading.Barrier(8), []

    def start() -> None:
        barrier.wait()
        with keys_of(store.url) as source:
            seen.append(source.keys.names)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        leaks.wait_ended(thread)
    assert len(store.names()) == 1
    assert seen == [tuple(store.names())] * 8


def test_whoever_is_quicker_rotates_for_all(store: Redis) -> None:
    names = store.put(*(SPREAD + back * PERIOD for back in range(4)))
    with keys_of(store.url) as one, keys_of(store.url) as two:
        assert store.names()[1:] == names[:3], "one key has come, the oldest has gone"
        assert set(one.keys.names) == set(two.keys.names) == set(store.names())
        assert look(one)[0] == look(two)[0] == names[0], "the new one does not encrypt before all have it"
        with store.client() as client:
            assert 3 * PERIOD < client.ttl(LIST) <= 4 * PERIOD + 1


def test_a_lost_race_takes_the_others_key(store: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our look and our push another server pushes."""
    with keys_of(store.url) as source:
        store.put(2 * PERIOD)
        theirs: list[bytes] = []

        def token_bytes(size: int) -> bytes:
            theirs.extend(store.put(0, 2 * PERIOD))
            return os.urandom(size)

        monkeypatch.setattr(ticket_redis, "secrets", SimpleNamespace(token_bytes=token_bytes))
        assert sorted(look(source)) == sorted(theirs)
        assert store.names() == theirs


def test_a_clock_that_was_set_back(store: Redis) -> None:
    names = store.put(-1000 * PERIOD)
    with keys_of(store.url) as source:
        assert store.names()[1:] == names
        before = look(source)
        assert look(source) == before, "once"


@pytest.mark.parametrize(
    ("ages", "first"),
    [([0], 0), ([0, 10], 1), ([30, 3600], 0), ([29, 3600, 7200], 1), ([-5, 29, 28], 2), ([40, 50, 60, 70], 0)],
)
def test_a_key_encrypts_when_every_server_has_it(ages: list[int], first: int) -> None:
    now = 10**9
    entries = [ticket_redis._Entry(now - age, bytes([at]) * 80) for at, age in enumerate(ages)]
    keys = ticket_redis._in_order(now, entries, 30)
    assert keys[0] == entries[first].key
    assert sorted(keys) == sorted(entry.key for entry in entries)


def test_shorter_sessions_have_shorter_keys(store: Redis) -> None:
    names = store.put(400)
    with keys_of(store.url) as source:
        assert store.names() == names
        source.accept_for(600)
        look(source)
        assert len(store.names()) == 2


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in caplog.records]


def test_it_is_away_at_the_start_and_comes(stopped: Redis, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with keys_of(stopped.url) as source:
        own = source.keys.names
        assert len(own) == 1
        assert look(source) == look(source) == own
        assert said(caplog) == ["WARNING"]
        assert f"ticket keys of redis://127.0.0.1:{stopped.port}/0 cannot be had, random ones" in caplog.text
        stopped.start()
        assert look(source) == tuple(stopped.names()) != own
        assert said(caplog) == ["WARNING", "INFO"]
    assert PASSWORD not in caplog.text
    assert "sesame" not in caplog.text


def test_it_goes_and_returns(store: Redis, identity: Identity, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    client = client_context(identity, "1.2")
    with keys_of(store.url) as source:
        context = TLSContext(identity.cert, identity.key, ticket_keys=source)
        session = meet(context.pyopenssl, client).session
        before = source.keys.names
        store.stop()
        assert look(source) == look(source) == before
        assert said(caplog) == ["WARNING"]
        assert "the last ones stay" in caplog.text
        assert meet(context.pyopenssl, client, session).reused
        store.start()
        assert look(source) == tuple(store.names())
        assert said(caplog) == ["WARNING", "INFO"]


@pytest.mark.parametrize("what", ["password", "type", "entry", "silence"])
def test_what_it_answers_makes_no_sense(
    store: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(ticket_redis, "_PATIENCE", 0.1)
    url = store.url
    with contextlib.ExitStack() as stack:
        if what == "password":
            url = url.replace("sesame", "barley")
        elif what == "silence":
            mute = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            url = f"redis://127.0.0.1:{mute.getsockname()[1]}"
        else:
            client = stack.enter_context(store.client())
            client.set(LIST, "a text") if what == "type" else client.rpush(LIST, b"short")
        source = stack.enter_context(keys_of(url))
        assert len(look(source)) == 1
        assert said(caplog) == ["WARNING"]
        assert "\n" not in caplog.records[0].message
        assert "barley" not in caplog.text


def test_the_thread_ends_with_the_source(store: Redis) -> None:
    source = RedisKeys(store.url, interval=NEVER)
    thread = source._fetcher._thread
    keys = source.keys
    del source
    gc.collect()
    leaks.wait_ended(thread)
    assert len(keys.names) == 1


def test_a_forked_process_has_a_thread_of_its_own(store: Redis) -> None:
    with keys_of(store.url) as source:
        parents = source._fetcher
        source.keep_up(0)
        assert source._fetcher is parents
        source._pid = 0  # as in a child, but for the thread, which is here
        source.keep_up(0)
        assert source._fetcher is not parents
        assert source._fetcher.looked.wait(leaks.PATIENCE)
        assert source._fetcher._thread.is_alive()
        parents.stop()
        leaks.wait_ended(parents._thread)


def test_two_processes_and_one_redis(store: Redis, identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLSSERVER_SSL_TICKET_KEYS", store.url)  # where other users do not see the password
    arguments = ("--certfile", str(identity.cert), "--keyfile", str(identity.key), "--offload=off")
    with serving(*arguments) as one, serving(*arguments) as two:
        for version in VERSIONS:
            client = client_context(identity, version)
            session = connect(("127.0.0.1", one.port), client).session
            assert connect(("127.0.0.1", two.port), client, session).reused
        store.stop()
        session = connect(("127.0.0.1", one.port), client).session
        assert connect(("127.0.0.1", two.port), client, session).reused
        for served in (one, two):
            code, errors = served.stop(signal.SIGTERM)
            assert (code, "Traceback" in errors) == (0, False)


def test_the_rights_that_the_documentation_names_are_enough(store: Redis, caplog: pytest.LogCaptureFixture) -> None:
    (rights,) = re.findall(r"^ACL SETUSER tickets .*$", DOCUMENT.read_text(), re.MULTILINE)
    with store.client() as client:
        client.execute_command(*rights.replace("PASSWORD", "secret").split())
    names = store.put(2 * PERIOD)
    with keys_of(store.url.replace(":open%20sesame", "tickets:secret")) as source:
        assert not caplog.records
        assert sorted(source.keys.names) == sorted(store.names())
        assert store.names()[1:] == names, "it may rotate"


def test_over_tls(stopped: Redis, identity: Identity, caplog: pytest.LogCaptureFixture) -> None:
    files = {"cert": identity.cert, "key": identity.key, "ca-cert": identity.ca}
    arguments = [each for name, path in files.items() for each in (f"--tls-{name}-file", str(path))]
    stopped.start("--port", "0", "--tls-port", str(stopped.port), "--tls-auth-clients", "no", *arguments)
    url = stopped.url.replace("redis://", "rediss://")
    with keys_of(f"{url}?ssl_ca_certs={identity.ca}") as one, keys_of(f"{url}?ssl_ca_certs={identity.ca}") as two:
        assert one.keys.names == two.keys.names
        assert not caplog.records
    with keys_of(url) as stranger:
        assert stranger.keys.names != one.keys.names
        assert "CERTIFICATE_VERIFY_FAILED" in caplog.text


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("redis://127.0.0.1:port", "write redis://"),
        (["redis://127.0.0.1", "tickets"], "a Redis is given beside others"),
        ("redis://:secret@127.0.0.1/?no_such_setting=1", "no_such_setting"),
    ],
)
def test_a_mistake_is_one_line(identity: Identity, setting: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        TLSContext(identity.cert, identity.key, ticket_keys=setting)
    assert re.fullmatch(r"ticket keys[^\n]{20,300}", str(caught.value))
    assert "secret" not in str(caught.value)


def test_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.retry", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'tlsserver\[redis\]'"):
        RedisKeys("redis://127.0.0.1")
