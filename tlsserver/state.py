"""The life of a connection, as one table.

A connection is in one `State`; an `Event` moves it along `TRANSITIONS`. What is not in the table is a bug in the
caller: it raises and changes nothing. There is no TLS, no clock and no I/O here, so the table can be tested pair by
pair, and the picture in the documentation is drawn from it (`as_mermaid`).

Three phases (handshaking, open, closing) can each be interrupted in the same two ways: the job is paused (``PARKED``)
or no job was to be had (``QUEUED``). These are states of their own and not a flag, because what may be called differs:
while a job is paused OpenSSL accepts nothing but a repetition of the same call. Open and closing connections meet them
only when the engine offloads ciphers as well.

``CANCELLED`` leads to ``CLOSED`` through ``DRAINING`` where the job is not ours to end (a third-party engine's): the
socket is gone, the job and its wait fds are not. ``LINGERING`` is a connection that was answered around TLS, because it
spoke plain HTTP or because its engine takes no handshakes now: it only waits until the client has read the answer.
"""

from __future__ import annotations

import enum

from tlsserver.errors import IllegalTransitionError

__all__ = [
    "CLOSING",
    "GONE",
    "HANDSHAKING",
    "INITIAL",
    "OPEN",
    "PARKED",
    "QUEUED",
    "TRANSITIONS",
    "Event",
    "State",
    "as_mermaid",
    "next_state",
]


class State(enum.Enum):
    """Where a connection is in its life."""

    HANDSHAKING = "handshaking"
    PARKED = "parked"
    QUEUED = "queued"
    OPEN = "open"
    OPEN_PARKED = "open_parked"
    OPEN_QUEUED = "open_queued"
    CLOSING = "closing"
    CLOSING_PARKED = "closing_parked"
    CLOSING_QUEUED = "closing_queued"
    LINGERING = "lingering"
    DRAINING = "draining"
    CLOSED = "closed"

    # Enum's own __hash__ is Python code; members are singletons, so identity serves and is several times faster.
    __hash__ = object.__hash__


class Event(enum.Enum):
    """What can happen to it."""

    PAUSED = "job paused"
    NO_JOB = "no job to be had"
    RESUMED = "job ended"
    HANDSHAKE_DONE = "handshake done"
    CLOSE = "close asked for"
    ANSWERED_PLAIN = "plain HTTP answered"
    REFUSED = "refused, too many jobs drain"
    CANCELLED = "cancelled, job still runs"
    ENDED = "ended"

    __hash__ = object.__hash__


INITIAL = State.HANDSHAKING

TRANSITIONS: dict[State, dict[Event, State]] = {
    State.HANDSHAKING: {
        Event.PAUSED: State.PARKED,
        Event.NO_JOB: State.QUEUED,
        Event.HANDSHAKE_DONE: State.OPEN,
        Event.ANSWERED_PLAIN: State.LINGERING,
        Event.REFUSED: State.LINGERING,
        Event.ENDED: State.CLOSED,
    },
    State.PARKED: {
        Event.RESUMED: State.HANDSHAKING,
        Event.CANCELLED: State.DRAINING,
        Event.ENDED: State.CLOSED,
    },
    State.QUEUED: {
        Event.RESUMED: State.HANDSHAKING,
        Event.ENDED: State.CLOSED,
    },
    State.OPEN: {
        Event.PAUSED: State.OPEN_PARKED,
        Event.NO_JOB: State.OPEN_QUEUED,
        Event.CLOSE: State.CLOSING,
        Event.ENDED: State.CLOSED,
    },
    State.OPEN_PARKED: {
        Event.RESUMED: State.OPEN,
        Event.CLOSE: State.CLOSING_PARKED,
        Event.CANCELLED: State.DRAINING,
        Event.ENDED: State.CLOSED,
    },
    State.OPEN_QUEUED: {
        Event.RESUMED: State.OPEN,
        Event.CLOSE: State.CLOSING_QUEUED,
        Event.ENDED: State.CLOSED,
    },
    State.CLOSING: {
        Event.PAUSED: State.CLOSING_PARKED,
        Event.NO_JOB: State.CLOSING_QUEUED,
        Event.ENDED: State.CLOSED,
    },
    State.CLOSING_PARKED: {
        Event.RESUMED: State.CLOSING,
        Event.CANCELLED: State.DRAINING,
        Event.ENDED: State.CLOSED,
    },
    State.CLOSING_QUEUED: {
        Event.RESUMED: State.CLOSING,
        Event.ENDED: State.CLOSED,
    },
    State.LINGERING: {Event.ENDED: State.CLOSED},
    State.DRAINING: {Event.ENDED: State.CLOSED},
    State.CLOSED: {},
}

# The states by phase and by interruption.
HANDSHAKING = frozenset({State.HANDSHAKING, State.PARKED, State.QUEUED})
OPEN = frozenset({State.OPEN, State.OPEN_PARKED, State.OPEN_QUEUED})
CLOSING = frozenset({State.CLOSING, State.CLOSING_PARKED, State.CLOSING_QUEUED})
GONE = frozenset({State.DRAINING, State.CLOSED})
PARKED = frozenset({State.PARKED, State.OPEN_PARKED, State.CLOSING_PARKED})
QUEUED = frozenset({State.QUEUED, State.OPEN_QUEUED, State.CLOSING_QUEUED})


def next_state(state: State, event: Event) -> State:
    """Look up one transition.

    Args:
        state: Where the connection is.
        event: What happened.

    Returns:
        Where it goes.

    Raises:
        IllegalTransitionError: The table has no such transition.
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        message = f"a connection that is {state.value} cannot take the event {event.value!r}"
        raise IllegalTransitionError(message) from None


def as_mermaid() -> str:
    """Draw the table as a Mermaid state diagram (https://mermaid.js.org/syntax/stateDiagram.html).

    Returns:
        The diagram's text, one line a transition, in the table's order.
    """
    lines = ["stateDiagram-v2", f"    [*] --> {INITIAL.name}"]
    for state, row in TRANSITIONS.items():
        lines += [f"    {state.name} --> {target.name}: {event.value}" for event, target in row.items()]
    lines += [f"    {state.name} --> [*]" for state, row in TRANSITIONS.items() if not row]
    return "\n".join(lines) + "\n"
