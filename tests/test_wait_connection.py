"""The wait context of a connection: a view of what OpenSSL owns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from helpers_server import Echo, House

from engine_shim import ChangedFds, LatencyEngine, ManualEngine, Status, WaitContextFreedError, WaitFd
from support.pair import Pair, client_context, server_context

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from support.certificates import Identity


@pytest.fixture
def pair(identity: Identity, manual: ManualEngine) -> Iterator[Pair]:
    with Pair(server_context(identity, manual.load_key(identity.key)), client_context(identity)) as pair:
        yield pair


def test_a_connection_that_runs_in_no_job_has_none(identity: Identity, pipe: int) -> None:
    with Pair(server_context(identity, None), client_context(identity), offloaded=False) as pair:
        assert pair.finish() is Status.DONE
        view = pair.server.wait_context
        assert view.get_all_fds() == ()
        assert view.get_changed_fds() == ChangedFds((), ())
        with pytest.raises(WaitContextFreedError, match="if its calls run in jobs"):
            view.set_wait_fd("key", pipe)


def test_a_connections_context_is_a_view_of_openssls(pair: Pair, manual: ManualEngine, pipe: int) -> None:
    view = pair.server.wait_context
    assert pair.until_parked() is Status.WANT_ASYNC
    assert view is pair.server.wait_context
    assert view.get_all_fds() == pair.server.wait_fds() != ()
    assert view.get_changed_fds().added == pair.server.added_fds() == pair.server.wait_fds()
    view.set_wait_fd("mine", pipe, "data")
    assert view.get_fd("mine") == WaitFd(pipe, "data")
    assert pipe in view.get_all_fds()
    view.clear_fd("mine")
    manual.perform()
    assert pair.finish() is Status.DONE
    assert view.get_all_fds() == ()
    assert pair.server.close()
    with pytest.raises(WaitContextFreedError, match="until it is closed"):
        view.get_status()


def test_nothing_is_added_when_resumed_for_nothing(pair: Pair, manual: ManualEngine) -> None:
    assert pair.until_parked() is Status.WANT_ASYNC
    manual.wake()
    assert pair.server.handshake() is Status.WANT_ASYNC
    assert pair.server.added_fds() == ()
    assert len(pair.server.wait_fds()) == 1


def test_the_cleanup_routine_of_a_connections_fd_runs_when_it_is_closed(
    identity: Identity, manual: ManualEngine, pipe: int
) -> None:
    ran: list[Any] = []
    pair = Pair(server_context(identity, manual.load_key(identity.key)), client_context(identity))
    assert pair.until_parked() is Status.WANT_ASYNC
    pair.server.wait_context.set_wait_fd("mine", pipe, "data", lambda *told: ran.append(told[1:]))
    assert pair.close()
    assert ran == [("mine", pipe, "data")]


@pytest.mark.parametrize("early", [True, False])
def test_a_connections_callback(pair: Pair, manual: ManualEngine, *, early: bool) -> None:
    called: list[str] = []
    if early:
        pair.server.wait_context.set_callback(called.append, "called")
    assert pair.until_parked() is Status.WANT_ASYNC
    if not early:  # too late for the op in flight, as OpenSSL's engines see it
        pair.server.wait_context.set_callback(called.append, "called")
    manual.perform()
    assert pair.server.wait_context.run_callbacks() == (1 if early else 0)
    assert called == (["called"] if early else [])
    assert pair.finish() is Status.DONE


def test_a_protocol_reaches_it_through_its_transport(identity: Identity) -> None:
    views: list[Any] = []

    class Protocol(Echo):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            views.append(transport.get_extra_info("wait_context"))
            assert views[0].get_all_fds() == ()
            assert views[0].get_status() == 0

    with LatencyEngine(0) as engine, House(identity, engine, factory=Protocol) as house:
        house.connected().say_goodbye()
        house.until(house.is_empty)
    with pytest.raises(WaitContextFreedError):
        views[0].get_status()
