"""One SSL driven asynchronously: what it waits for, and what it refuses."""

from __future__ import annotations

import gc
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from OpenSSL import SSL

import engine_shim
from engine_shim import LatencyEngine, ManualEngine, Status
from support.pair import Pair, client_context, server_context
from support.waiting import readable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Certificates, Identity


@pytest.fixture
def identity(certificates: Certificates) -> Identity:
    return certificates["rsa2048"]


@pytest.fixture
def engine() -> Iterator[ManualEngine]:
    with ManualEngine() as engine:
        yield engine


@pytest.fixture
def pair(identity: Identity, engine: ManualEngine) -> Iterator[Pair]:
    with Pair(server_context(identity, engine.load_key(identity.key)), client_context(identity)) as pair:
        yield pair


@pytest.fixture
def parked(pair: Pair) -> Pair:
    assert pair.until_parked() is Status.WANT_ASYNC
    return pair


def test_step_tells_what_it_waits_for(parked: Pair) -> None:
    assert parked.server.paused
    assert len(parked.server.wait_fds()) == 1
    assert not parked.signalled()


def test_wait_fd_is_gone_after_the_op(parked: Pair, engine: ManualEngine) -> None:
    engine.perform()
    assert parked.signalled()
    assert parked.finish() is Status.DONE
    assert parked.server.wait_fds() == ()


def test_resume_for_nothing_pauses_again(parked: Pair, engine: ManualEngine) -> None:
    for _ in range(5):
        engine.wake()
        assert parked.signalled()
        assert parked.server.handshake() is Status.WANT_ASYNC
        assert not parked.signalled()
    for _ in range(5):  # resumed too early, with no signal at all
        assert parked.server.handshake() is Status.WANT_ASYNC
    engine.perform()
    assert parked.finish() is Status.DONE


def test_other_calls_are_refused_while_paused_and_change_nothing(parked: Pair, engine: ManualEngine) -> None:
    with pytest.raises(engine_shim.BusyError):
        parked.server.read_into(bytearray(10))
    with pytest.raises(engine_shim.BusyError):
        parked.server.write(b"no")
    with pytest.raises(engine_shim.BusyError):
        parked.server.shutdown()
    assert parked.server.paused
    engine.perform()
    assert parked.finish() is Status.DONE
    assert parked.echo() == b"ping"


def test_another_thread_is_refused(parked: Pair, engine: ManualEngine) -> None:
    caught: list[BaseException] = []

    def elsewhere() -> None:
        for call in (parked.server.handshake, parked.server.close):
            with pytest.raises(engine_shim.WrongThreadError) as error:
                call()
            caught.append(error.value)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(caught) == 2
    engine.perform()
    assert parked.finish() is Status.DONE


def test_closed_is_refused(pair: Pair) -> None:
    assert pair.server.close()
    assert pair.server.close()
    with pytest.raises(engine_shim.EngineClosedError):
        pair.server.handshake()


def test_pyopenssl_connection_may_die_first(parked: Pair, engine: ManualEngine) -> None:
    del parked.connection
    gc.collect()
    engine.perform()
    assert parked.finish() is Status.DONE
    assert parked.echo() == b"ping"


def test_paused_ssl_is_never_collected(identity: Identity, engine: ManualEngine) -> None:
    before = engine_shim.counters()
    pair = Pair(server_context(identity, engine.load_key(identity.key)), client_context(identity))
    assert pair.until_parked() is Status.WANT_ASYNC
    fd = pair.server.wait_fds()[0]
    sockets = (pair.near, pair._far)
    del pair
    gc.collect()
    engine.perform()
    assert readable([fd])  # still there, and resumable
    from engine_shim.paused import drain_paused  # noqa: PLC0415 - what runs at exit

    drain_paused()
    for end in sockets:
        end.close()
    after = engine_shim.counters()
    assert after.jobs_finished - before.jobs_finished == after.jobs_started - before.jobs_started
    assert after.jobs_abandoned == before.jobs_abandoned


def test_stale_error_does_not_hide_a_pause(parked: Pair, engine: ManualEngine) -> None:
    """openssl#11889: SSL_get_error() looks at the error queue first."""
    from OpenSSL._util import lib  # noqa: PLC0415 - to leave an entry on the queue

    assert lib.BIO_new_file(b"/nowhere", b"r") is not None
    assert lib.ERR_peek_error() != 0
    assert parked.server.handshake() is Status.WANT_ASYNC
    engine.perform()
    assert parked.finish() is Status.DONE


def test_handshake_without_offload_runs_in_no_job(identity: Identity) -> None:
    before = engine_shim.counters().jobs_started
    with Pair(server_context(identity, None), client_context(identity), offloaded=False) as pair:
        assert pair.until_parked() is Status.DONE
    assert engine_shim.counters().jobs_started == before


def test_reading_and_writing_run_in_jobs_only_if_asked(identity: Identity) -> None:
    with LatencyEngine(0) as engine:
        context = server_context(identity, engine.load_key(identity.key))
        for io in (False, True):
            with Pair(context, client_context(identity), io=io) as pair:
                assert pair.finish() is Status.DONE
                before = engine_shim.counters().jobs_started
                assert pair.echo() == b"ping"
                assert (engine_shim.counters().jobs_started > before) is io


def test_manual_engine_without_a_job_is_refused(identity: Identity, engine: ManualEngine) -> None:
    """A handshake outside a job cannot pause: the op fails at once, nothing waits for ever."""
    context = server_context(identity, engine.load_key(identity.key))
    with Pair(context, client_context(identity), offloaded=False) as pair:
        assert pair.until_parked() is Status.ERROR
        assert "no job to pause" in pair.server.errors()[0].text


def test_peer_that_leaves_is_told_from_an_error(identity: Identity) -> None:
    with Pair(server_context(identity, None), client_context(identity)) as pair:
        assert pair.finish() is Status.DONE
        pair._far.close()
        assert pair.server.read_into(bytearray(1)) in {Status.ERROR, Status.SYSCALL}  # OpenSSL 3: unexpected EOF


def test_close_notify(identity: Identity) -> None:
    with Pair(server_context(identity, None), client_context(identity)) as pair:
        assert pair.finish() is Status.DONE
        assert pair.server.shutdown() is Status.DONE
        assert pair.server.count == 0
        pair.step_client()
        pair.client.shutdown()
        pair.flush_client()
        assert pair.server.read_into(bytearray(1)) is Status.CLOSED
        assert pair.server.shutdown() is Status.DONE
        assert pair.server.count == 1


def test_group_and_resumption(identity: Identity) -> None:
    with Pair(server_context(identity, None), client_context(identity)) as pair:
        assert pair.finish() is Status.DONE
        assert pair.server.group
        assert not pair.server.reused
    assert pair.server.group is None


@pytest.mark.parametrize(
    ("ours", "theirs", "chosen"),
    [
        (["http/1.1"], [b"h2", b"http/1.1"], b"http/1.1"),
        (["h2", "http/1.1"], [b"http/1.1", b"h2"], b"h2"),
        (["http/1.1"], [], b""),
    ],
)
def test_alpn(identity: Identity, ours: list[str], theirs: list[bytes], chosen: bytes) -> None:
    server, client = server_context(identity, None), client_context(identity)
    engine_shim.set_alpn(server, ours[::-1])
    engine_shim.set_alpn(server, ours)  # the second call replaces the first
    if theirs:
        client.set_alpn_protos(theirs)
    with Pair(server, client) as pair:
        assert pair.finish() is Status.DONE
        assert pair.client.get_alpn_proto_negotiated() == chosen


def test_alpn_without_a_common_protocol(identity: Identity) -> None:
    server, client = server_context(identity, None), client_context(identity)
    engine_shim.set_alpn(server, ["http/1.1"])
    client.set_alpn_protos([b"h2", b"http/1.0"])
    with Pair(server, client) as pair:
        assert pair.until_parked() is Status.ERROR
        pair.step_client()
        assert "no application protocol" in str(pair.client_error)


@pytest.mark.parametrize("protocols", [[], [""], ["x" * 256]])
def test_alpn_names_are_checked(protocols: list[str]) -> None:
    with pytest.raises(ValueError, match="ALPN"):
        engine_shim.set_alpn(SSL.Context(SSL.TLS_SERVER_METHOD), protocols)


def test_no_job_outside() -> None:
    assert not engine_shim.job_is_current()


EXIT = """
import sys
sys.path[:0] = sys.argv[1:3]
from types import SimpleNamespace
import engine_shim
from support.pair import Pair, client_context, server_context
from support.waiting import readable
identity = SimpleNamespace(cert=sys.argv[3], key=sys.argv[4], ca=sys.argv[5])
engine = engine_shim.{engine}
pair = Pair(server_context(identity, engine.load_key(identity.key)), client_context(identity))
assert pair.until_parked() is engine_shim.Status.WANT_ASYNC
import atexit
def report():
    counters = engine_shim.counters()
    print(counters.jobs_started - counters.jobs_finished, counters.jobs_abandoned)
# Runs after the shim's own: it was registered later than this one would be if it came first.
atexit.unregister(engine_shim._at_exit)
atexit.register(report)
atexit.register(engine_shim._at_exit)
"""


@pytest.mark.parametrize("engine", ["ManualEngine()", "LatencyEngine(600)", "ThreadEngine(2)"])
def test_exit_with_a_handshake_parked(identity: Identity, engine: str) -> None:
    root = Path(__file__).parent
    paths = [str(root.parent), str(root), str(identity.cert), str(identity.key), str(identity.ca)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore::ResourceWarning", "-c", EXIT.replace("{engine}", engine), *paths],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout.split()) == (0, "", ["0", "0"])


def test_many_connections_of_one_thread(identity: Identity, engine: ManualEngine) -> None:
    """Forty jobs paused at once, ended in the opposite order: each gets its own answer."""
    context = server_context(identity, engine.load_key(identity.key))
    pairs = [Pair(context, client_context(identity)) for _ in range(40)]
    for pair in pairs:
        assert pair.until_parked() is Status.WANT_ASYNC
    assert len({pair.server.wait_fds() for pair in pairs}) == 40
    for index in range(39, -1, -1):
        engine.perform(index)
        assert [pair.signalled() for pair in pairs if pair.server.paused].count(True) == 1
        assert pairs[index].finish() is Status.DONE
    for number, pair in enumerate(pairs):
        assert pair.echo(b"%d" % number) == b"%d" % number
        pair.close()


# Without any engine in the process: the fork must be noticed all the same.
FORK = """
import os, sys
sys.path[:0] = sys.argv[1:3]
from types import SimpleNamespace
import engine_shim
from support.pair import Pair, client_context, server_context
from support.waiting import readable
engine_shim.attach()
identity = SimpleNamespace(cert=sys.argv[3], key=sys.argv[4], ca=sys.argv[5])
pair = Pair(server_context(identity, None), client_context(identity), offloaded=False)
child = os.fork()
if child == 0:
    try:
        pair.server.handshake()
    except engine_shim.ForkedError:
        os._exit(0)
    os._exit(1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_fork_is_noticed_without_an_engine(identity: Identity) -> None:
    root = Path(__file__).parent
    paths = [str(root.parent), str(root), str(identity.cert), str(identity.key), str(identity.ca)]
    program = [sys.executable, "-W", "ignore::ResourceWarning", "-c", FORK, *paths]
    assert subprocess.run(program, capture_output=True, text=True, timeout=30, check=True).stdout == "0\n"


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_socket_stays_until_the_job_is_unwound(identity: Identity, engine: ManualEngine) -> None:
    """A paused SSL keeps Connection and socket: what it writes as it unwinds must not go to a stranger."""
    pair = Pair(server_context(identity, engine.load_key(identity.key)), client_context(identity))
    assert pair.until_parked() is Status.WANT_ASYNC
    fd, tls, far = pair.near.fileno(), pair.server, pair._far
    del pair
    gc.collect()
    one, other = socket.socketpair()
    assert fd not in {one.fileno(), other.fileno()}
    assert tls.close()
    del tls
    gc.collect()  # the server's socket goes with it, unclosed, as it came
    for end in (one, other, far):
        end.close()


def test_refused_close_changes_nothing(parked: Pair, engine: ManualEngine) -> None:
    from engine_shim.paused import _paused  # noqa: PLC0415 - the registry

    def close_elsewhere() -> None:
        with pytest.raises(engine_shim.WrongThreadError):
            parked.server.close()

    thread = threading.Thread(target=close_elsewhere)
    thread.start()
    thread.join()
    assert parked.server in _paused
    engine.perform()
    assert parked.finish() is Status.DONE


def test_cancel_on_another_thread_does_nothing(parked: Pair, engine: ManualEngine) -> None:
    thread = threading.Thread(target=parked.server.cancel)
    thread.start()
    thread.join()
    assert engine.pending == 1
    engine.perform()
    assert parked.finish() is Status.DONE


FIRST = {
    "set_alpn": "engine_shim.set_alpn(context, ['h2'])",
    "AsyncSSL": "engine_shim.AsyncSSL(SSL.Connection(context, socket.socket()), handshake=False)",
    "use_plain_key": "engine_shim.use_plain_key(context, sys.argv[2])",
}


@pytest.mark.parametrize("call", FIRST)
def test_every_call_may_be_the_first(identity: Identity, call: str) -> None:
    code = f"import sys, socket; sys.path.insert(0, sys.argv[1]); import engine_shim; from OpenSSL import SSL; \
context = SSL.Context(SSL.TLS_SERVER_METHOD); {FIRST[call]}"
    root = str(Path(__file__).parent.parent)
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, root, str(identity.key)], check=True, timeout=30)
