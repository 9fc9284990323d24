"""Session tickets under shared keys: who resumes where, what is renewed, what is refused; and nginx, with one file."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import shutil
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest
from OpenSSL._util import ffi, lib

import engine_shim
from engine_shim import ManualEngine, TicketKeys
from engine_shim.server_context import set_session_context
from support.pair import client_context, server_context
from support.resumption import connect, meet
from support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from OpenSSL import SSL

    from support.certificates import Identity

VERSIONS = ("1.2", "1.3")
A_DIGEST, ANOTHER_DIGEST = b"a" * 32, b"b" * 32


def ticket_key(size: int = 80) -> bytes:
    return os.urandom(size)


def shared(
    identity: Identity, keys: TicketKeys, digest: bytes = A_DIGEST, key: engine_shim.Key | None = None
) -> SSL.Context:
    """Make a server's Context with these keys, as another process would."""
    context = server_context(identity, key)
    keys.use(context)
    set_session_context(context, digest)
    return context


@pytest.fixture(params=VERSIONS)
def client(request: pytest.FixtureRequest, identity: Identity) -> SSL.Context:
    return client_context(identity, request.param)


@pytest.mark.parametrize("size", [80, 48])
def test_sessions_resume_wherever_the_keys_are(identity: Identity, client: SSL.Context, size: int) -> None:
    key = ticket_key(size)
    first = meet(shared(identity, TicketKeys([key])), client)
    assert not first.reused
    assert meet(shared(identity, TicketKeys([key])), client, first.session).reused
    assert not meet(shared(identity, TicketKeys([ticket_key(size)])), client, first.session).reused
    assert not meet(server_context(identity, None), client, first.session).reused


def test_one_ring_in_several_contexts(identity: Identity, client: SSL.Context) -> None:
    keys = TicketKeys()
    first = meet(shared(identity, keys), client)
    assert meet(shared(identity, keys), client, first.session).reused


def test_in_a_job(identity: Identity, client: SSL.Context) -> None:
    keys = TicketKeys()
    with ManualEngine() as engine:
        offloaded = [shared(identity, keys, key=engine.load_key(identity.key)) for _ in range(2)]
        first = meet(offloaded[0], client, engine=engine)
        assert meet(offloaded[1], client, first.session, engine).reused
        keys.set([ticket_key()])
        assert not meet(offloaded[1], client, first.session, engine).reused


def test_what_an_old_key_decrypts_is_renewed(identity: Identity, client: SSL.Context) -> None:
    old, new = ticket_key(), ticket_key()
    keys = TicketKeys([old])
    server = shared(identity, keys)
    first = meet(server, client)
    keys.set([new, old])
    second = meet(server, client, first.session)
    keys.set([new])
    assert second.reused
    assert not meet(server, client, first.session).reused
    assert meet(server, client, second.session).reused


def secret(session: SSL.Session) -> bytes:
    """Return what the ticket is about: each one of TLS 1.3 has its own."""
    room = ffi.new("unsigned char[]", 64)
    return bytes(ffi.buffer(room, lib.SSL_SESSION_get_master_key(session._session, room, len(room))))


def test_each_resumption_of_tls_1_3_gives_another_ticket(identity: Identity) -> None:
    """Browsers use one once: without it every second visit would be a full handshake."""
    client = client_context(identity, "1.3")
    server = shared(identity, TicketKeys())
    met = meet(server, client)
    seen = {secret(met.session)}
    for visits in range(2, 6):
        met = meet(server, client, met.session)
        seen.add(secret(met.session))
        assert (met.reused, len(seen)) == (True, visits)


def test_rotation_keeps_as_many_as_it_is_told(identity: Identity, client: SSL.Context) -> None:
    keys = TicketKeys()
    server = shared(identity, keys)
    first = meet(server, client)
    name = keys.names[0]
    for position in (1, 2):
        keys.rotate(keep=2)
        assert keys.names.index(name) == position
        assert meet(server, client, first.session).reused
    keys.rotate(keep=2)
    assert name not in keys.names
    assert len(keys.names) == 3
    assert not meet(server, client, first.session).reused
    keys.rotate(keep=0)
    assert len(keys.names) == 1


def test_a_ticket_that_was_changed(identity: Identity, client: SSL.Context) -> None:
    """The name is known, and the MAC is wrong: a full handshake, and no error."""
    key = ticket_key()
    first = meet(shared(identity, TicketKeys([key])), client)
    forged = shared(identity, TicketKeys([key[:16] + ticket_key()[16:]]))
    again = meet(forged, client, first.session)
    assert not again.reused
    assert meet(forged, client, again.session).reused


def test_another_policy_does_not_take_the_session(identity: Identity, client: SSL.Context) -> None:
    keys = TicketKeys()
    first = meet(shared(identity, keys), client)
    other = shared(identity, keys, ANOTHER_DIGEST)
    assert not meet(other, client, first.session).reused
    assert meet(shared(identity, keys), client, first.session).reused


def test_keys_outlive_what_holds_them(identity: Identity, client: SSL.Context) -> None:
    keys = TicketKeys()
    server = shared(identity, keys)
    keys.use(server)  # again: the reference before is given back
    first = meet(server, client)
    del keys
    gc.collect()
    assert meet(server, client, first.session).reused


def test_a_forked_child_has_the_same_keys() -> None:
    keys = TicketKeys()
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        keys.rotate(keep=1)
        os.write(write, b"".join(keys.names))
        os._exit(0)
    keys.rotate(keep=1)
    assert os.waitpid(child, 0)[1] == 0
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"".join(keys.names)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([], "0 ticket keys cannot work: give 1 to 64"),
        ([80] * 65, "65 ticket keys cannot work"),
        ([80, 79], "ticket key 2 has 79 bytes: it must have 80"),
        ([0], "ticket key 1 has 0 bytes"),
    ],
)
def test_keys_that_are_none(lengths: list[int], message: str) -> None:
    keys = TicketKeys()
    before = keys.names
    with pytest.raises(ValueError, match=message):
        keys.set([ticket_key(length) for length in lengths])
    assert keys.names == before


def test_a_name_must_be_there_once() -> None:
    key = ticket_key()
    with pytest.raises(ValueError, match="two ticket keys have the same name"):
        TicketKeys([key, ticket_key(), key[:16] + ticket_key(32)])


def test_too_many_to_keep() -> None:
    for keep in (-1, 64):
        with pytest.raises(ValueError, match="cannot keep"):
            TicketKeys().rotate(keep)


def test_nothing_secret_is_shown() -> None:
    key = ticket_key()
    keys = TicketKeys([key])
    assert keys.names == (key[:16],)
    assert repr(keys) == f"<TicketKeys {key[:16].hex()}>"


# --- nginx ---

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
CONFIG = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{ worker_connections 16; }}
http {{
    access_log off;
    {temporary}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {cert}; ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache off; ssl_session_ticket_key {tickets};
        return 200 "nginx";
    }}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, identity: Identity, tickets: Path) -> Iterator[tuple[str, int]]:
    """Run a real one that shares the file."""
    assert NGINX is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    config = folder / "nginx.conf"
    names = {"folder": folder, "temporary": temporary, "port": address[1], "tickets": tickets}
    config.write_text(CONFIG.format(**names, cert=identity.cert, key=identity.key))
    with subprocess.Popen([NGINX, "-e", "stderr", "-p", folder, "-c", config], stderr=subprocess.PIPE) as process:
        try:
            wait_listening(address, process)
            yield address
        finally:
            process.terminate()


def wait_listening(address: tuple[str, int], process: subprocess.Popen[bytes]) -> None:
    """It tells nobody when it listens."""
    while process.poll() is None:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(address, PATIENCE):
            return
    assert process.stderr is not None
    pytest.fail(process.stderr.read().decode())


def as_nginx(context: SSL.Context, identity: Identity) -> None:
    """Set nginx's session-id context: SHA-1 of the word HTTP and of the certificate's SHA-1."""
    der = ssl.PEM_cert_to_DER_cert(identity.cert.read_text().partition("-----END CERTIFICATE-----")[0] + END)
    context.set_session_id(hashlib.sha1(b"HTTP" + hashlib.sha1(der).digest()).digest())  # noqa: S324 - as nginx does


END = "-----END CERTIFICATE-----\n"


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
@pytest.mark.parametrize("size", [80, 48])
def test_nginx_and_we_share_a_file(tmp_path: Path, identity: Identity, size: int) -> None:
    file = tmp_path / "tickets"
    file.write_bytes(ticket_key(size))
    ours = server_context(identity, None)
    TicketKeys([file.read_bytes()]).use(ours)
    as_nginx(ours, identity)
    with nginx(tmp_path, identity, file) as address:
        for version in VERSIONS:
            client = client_context(identity, version)
            theirs = connect(address, client)
            assert not theirs.reused
            assert connect(address, client, theirs.session).reused
            theirs = connect(address, client)
            back = meet(ours, client, theirs.session)
            assert back.reused, "made by nginx, resumed by us"
            assert connect(address, client, back.session).reused, "renewed by us, resumed by nginx"
            fresh = meet(ours, client)
            assert connect(address, client, fresh.session).reused, "and the other way"
