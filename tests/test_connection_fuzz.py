"""A connection under any order of events.

Invariant: whatever the wire, the client, the engine and the protocol do, a connection keeps OpenSSL's contract
(`helpers_core.FakeWire` insists on it), tells its protocol of the end exactly once, loses and doubles no byte, waits
for nothing that nobody watches, stands in the line for jobs exactly while it waits for one, and leaves nothing behind
in the gauges.
"""

from __future__ import annotations

from typing import Any

from helpers_core import Scene, Taken
from hypothesis import given, settings
from hypothesis import strategies as st

from tlsserver.jobs import JobQueue
from tlsserver.state import PARKED, QUEUED, State
from tlsserver.wire import Peek, Step

STEPS = st.sampled_from([*Step])
MOST_STEPS = st.sampled_from([Step.DONE, Step.WANT_READ, Step.WANT_WRITE, Step.WANT_ASYNC, Step.WANT_ASYNC_JOB])
SCRIPTS = st.fixed_dictionaries(
    {
        "handshake": st.lists(MOST_STEPS | STEPS, max_size=6),
        "read": st.lists(
            st.binary(min_size=1, max_size=40) | MOST_STEPS.filter(bool) | STEPS.filter(bool), max_size=20
        ),
        "write": st.lists(st.builds(Taken, st.integers(1, 30)) | MOST_STEPS | STEPS, max_size=20),
        "shutdown": st.lists(STEPS, max_size=4),
        "close": st.lists(st.booleans(), max_size=3),
        "peek": st.lists(st.sampled_from([*Peek]), max_size=6),
        "discard": st.lists(st.booleans(), max_size=3),
    }
)
ACTIONS = st.lists(
    st.sampled_from(
        [
            *("readable", "writable", "resume", "turn", "expire", "settle", "late"),
            *("write", "write", "close", "abort", "pause", "resume_reading", "wind_down"),
            *("older_waits", "older_leaves", "no_fds", "one_fd", "new_fd", "drain_full"),
        ]
    ),
    max_size=40,
)


class Play:
    """One run."""

    def __init__(self, scripts: dict[str, list[Any]], on_data: str) -> None:
        jobs = JobQueue()
        self.older = jobs.place(lambda: None)
        self.scene = Scene(jobs=jobs, read_budget=50, write_budget=50, write_buffer_high=60, write_buffer_low=10)
        self.is_drain_full = False
        self.written = bytearray()
        for call, entries in scripts.items():
            self.scene.wire.script(call, *entries)
        if on_data:
            self.scene.protocol.reactions["data_received"] = lambda _data: self.use(on_data)

    def act(self, action: str) -> None:
        """What a driver may do, it does only when it was asked for, but for what is always allowed."""
        scene, connection = self.scene, self.scene.connection
        watch = connection.watch()
        if action in ("readable", "writable", "turn"):
            wanted = {"readable": watch.read, "writable": watch.write, "turn": watch.again}[action]
            if wanted:
                getattr(connection, action)(scene.now)
        elif action in ("resume", "settle", "wind_down"):
            getattr(connection, action)(scene.now)
        elif action in ("older_waits", "older_leaves"):
            (self.older.wait if action == "older_waits" else self.older.leave)()
        elif action in ("no_fds", "one_fd", "new_fd"):
            scene.wire.fds = () if action == "no_fds" else (71,)
            scene.wire.added = (71,) if action == "new_fd" else ()
        elif action == "drain_full":
            self.is_drain_full = scene.drain.is_full = True
        elif action == "expire":
            connection.expire(scene.now)
        elif action == "late":
            scene.now = max(scene.now, watch.deadline or 0.0)
            connection.expire(scene.now)
        else:
            self.use(action)
        self.check()

    def use(self, action: str) -> None:
        transport = self.scene.protocol.transport
        if transport is None:
            return
        if action == "write":
            data = b"%06d" % len(self.written)
            if not transport.is_closing():
                self.written += data
            transport.write(data)
        elif action == "raise":
            raise RuntimeError(action)
        else:
            getattr(transport, {"pause": "pause_reading"}.get(action, action))()

    def check(self) -> None:
        scene = self.scene
        assert scene.written_in_order(self.written)
        assert min(scene.gauges()) >= 0
        assert max(scene.gauges()) <= 1
        assert (scene.place in scene.jobs.waiting) == (scene.connection.state in QUEUED)

    def check_alive(self) -> None:
        """After a settled turn nothing waits for something that nobody watches."""
        watch, state = self.scene.connection.watch(), self.scene.connection.state
        if state in (State.OPEN, State.CLOSING) and self.scene.connection.buffer_size:
            assert watch.read or watch.write
        if state in PARKED or state is State.DRAINING:
            assert watch.wait_fds or watch.deadline is not None
        if state is not State.CLOSED:
            assert watch.deadline is not None or watch.wait_fds

    def finish(self) -> None:
        scene = self.scene
        scene.connection.abort(scene.now)
        scene.settle()
        for _ in range(4):
            scene.connection.resume(scene.now)
        scene.settle()
        names = scene.protocol.names
        assert scene.connection.state is State.CLOSED
        assert scene.wire.is_closed
        assert not any(scene.gauges())
        assert names.count("connection_lost") == names.count("connection_made") <= 1
        assert names.count("eof_received") <= 1
        pauses = [name for name in names if name in ("pause_writing", "resume_writing")]
        assert pauses == (["pause_writing", "resume_writing"] * len(pauses))[: len(pauses)]
        counters = scene.counters
        assert counters.handshakes_completed + counters.handshakes_failed + counters.handshakes_refused == 1
        assert not counters.handshakes_refused or self.is_drain_full
        assert counters.drained == counters.draining_max


@given(scripts=SCRIPTS, actions=ACTIONS, on_data=st.sampled_from(["", "write", "close", "abort", "pause", "raise"]))
@settings(max_examples=400, deadline=None)
def test_any_order_of_events(scripts: dict[str, list[Any]], actions: list[str], on_data: str) -> None:
    play = Play(scripts, on_data)
    for action in actions:
        play.act(action)
        if action != "settle":
            play.act("settle")
        play.check_alive()
    play.finish()


@given(scripts=SCRIPTS, actions=ACTIONS, on_data=st.sampled_from(["", "write", "close", "abort"]))
@settings(max_examples=200, deadline=None)
def test_several_events_in_a_turn(scripts: dict[str, list[Any]], actions: list[str], on_data: str) -> None:
    play = Play(scripts, on_data)
    for action in actions:
        play.act(action)
    play.finish()
