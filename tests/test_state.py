"""The table of a connection's life."""

from __future__ import annotations

import copy
import itertools

import pytest

from tlsserver import state as states
from tlsserver.errors import IllegalTransitionError, LocalError
from tlsserver.state import INITIAL, TRANSITIONS, Event, State, as_mermaid, next_state

LEGAL = [(state, event, target) for state, row in TRANSITIONS.items() for event, target in row.items()]
PAIRS = set(itertools.product(State, Event))
ILLEGAL = sorted(PAIRS - {(state, event) for state, event, _ in LEGAL}, key=str)


def reachable(start: State) -> set[State]:
    found, todo = {start}, [start]
    while todo:
        new = set(TRANSITIONS[todo.pop()].values()) - found
        found |= new
        todo += new
    return found


@pytest.mark.parametrize(("state", "event", "target"), LEGAL)
def test_legal(state: State, event: Event, target: State) -> None:
    assert next_state(state, event) is target


@pytest.mark.parametrize(("state", "event"), ILLEGAL)
def test_illegal_raises_and_changes_nothing(state: State, event: Event) -> None:
    before = copy.deepcopy(TRANSITIONS)
    with pytest.raises(IllegalTransitionError) as caught:
        next_state(state, event)
    assert before == TRANSITIONS
    assert isinstance(caught.value, LocalError)
    assert state.value in str(caught.value)
    assert event.value in str(caught.value)


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(State)


def test_every_state_is_reached_and_leads_to_the_end() -> None:
    assert reachable(INITIAL) == set(State)
    for state in State:
        assert State.CLOSED in reachable(state)


def test_only_the_end_has_no_way_out() -> None:
    assert [state for state, row in TRANSITIONS.items() if not row] == [State.CLOSED]


def test_every_event_is_used() -> None:
    assert {event for _, event, _ in LEGAL} == set(Event)


def test_any_living_state_can_end() -> None:
    for state in set(State) - {State.CLOSED}:
        assert next_state(state, Event.ENDED) is State.CLOSED


def test_only_a_paused_job_drains() -> None:
    assert {state for state, event, _ in LEGAL if event is Event.CANCELLED} == states.PARKED


def test_an_interruption_returns_where_it_came_from() -> None:
    for state, row in TRANSITIONS.items():
        for event in {Event.PAUSED, Event.NO_JOB} & set(row):
            assert next_state(row[event], Event.RESUMED) is state


def test_groups_are_disjoint_and_complete() -> None:
    phases = [states.HANDSHAKING, states.OPEN, states.CLOSING, states.GONE, frozenset({State.LINGERING})]
    assert sum(map(len, phases)) == len(State)
    assert frozenset().union(*phases) == set(State)
    assert not states.PARKED & states.QUEUED


def test_picture_shows_each_transition_once() -> None:
    lines = as_mermaid().splitlines()
    assert lines[0] == "stateDiagram-v2"
    for state, event, target in LEGAL:
        assert lines.count(f"    {state.name} --> {target.name}: {event.value}") == 1
    assert len(lines) == len(LEGAL) + 3  # the head, the way in and the way out
