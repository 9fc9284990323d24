"""What becomes of a function's answers: tried again, given up, told to breaker and log. No function is asked here."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from engine_shim import DoubleAnswerError, ForkedError, LateAnswerError, WrongAnswerError
from tlsserver.signers.breaker import Breaker
from tlsserver.signers.callable_calls import Call, Calls, RequestRefusedError

LONG = 600.0


class Request:
    """Stands for `engine_shim.SignRequest`: a test says how it takes an answer."""

    def __init__(self, seconds: float = LONG, *, waited: float = 0.0) -> None:
        self.submitted = time.monotonic() - waited
        self.deadline = self.submitted + seconds
        self.is_open = True
        self.problem: Exception | None = None
        self.answers: list[tuple[bytes, bool]] = []

    def complete(self, answer: bytes, *, final: bool) -> None:
        self.answers.append((answer, final))
        if self.problem is not None:
            raise self.problem
        self.is_open = False


class Desk:
    """The calls, with what they gave up."""

    def __init__(self, attempts: int = 3, failures: int = 100, *, fallback: bool = False) -> None:
        self.given_up: list[str] = []
        self.was_counted = False
        self.breaker = Breaker(failures, LONG)
        self.calls = Calls(
            "desk",
            self.breaker,
            attempts,
            give_up=self._give_up,
            has_fallback=lambda _: fallback,
        )

    def _give_up(self, request: Any, reason: str, *, is_counted: bool) -> None:
        request.is_open = False
        self.was_counted = is_counted
        self.given_up.append(reason)

    def begin(self, request: Request | None = None) -> Call:
        asked: Any = request or Request()
        call = self.calls.begin(asked)
        assert call is not None
        return call


def test_signature_is_the_answer() -> None:
    for answer in (b"signature", bytearray(b"signature"), memoryview(b"signature")):
        desk, request = Desk(), Request()
        assert desk.begin(request).returned(answer) is None
        assert request.answers == [(b"signature", False)]
        assert desk.given_up == []


def test_failure_is_tried_again_with_growing_pauses() -> None:
    desk = Desk(attempts=7)
    call = desk.begin()
    pauses = []
    for _ in range(6):
        pause = call.raised(ConnectionError("refused"))
        assert pause is not None
        pauses.append(pause)
        assert call.begin()
    assert call.raised(ConnectionError("refused")) is None
    for pause, longest in zip(pauses, (0.05, 0.1, 0.2, 0.4, 0.5, 0.5), strict=True):
        assert longest / 2 <= pause <= longest
    assert desk.given_up == ["signer desk: it raised ConnectionError: refused"]
    assert (desk.calls.retries, desk.calls.unseen) == (6, 6)


def test_pauses_are_not_all_the_same() -> None:
    """Who failed together does not come back together."""
    assert len({Desk().begin().raised(OSError()) for _ in range(20)}) > 10


def test_nothing_is_tried_again_after_the_deadline() -> None:
    desk = Desk()
    assert desk.begin(Request(0.01)).raised(OSError("gone")) is None
    assert desk.given_up == ["signer desk: it raised OSError: gone"]


def test_wrong_answer_is_tried_again_and_the_last_one_is_final() -> None:
    desk, request = Desk(attempts=2), Request()
    request.problem = WrongAnswerError("wrong")
    call = desk.begin(request)
    assert call.returned(b"rubbish") is not None
    assert call.begin()
    assert call.returned(b"rubbish") is None
    assert [final for _, final in request.answers] == [False, True]
    assert desk.calls.unseen == 0  # the engine counts those


def test_wrong_answer_is_never_final_where_there_is_a_fallback() -> None:
    desk, request = Desk(attempts=1, fallback=True), Request()
    request.problem = WrongAnswerError("wrong")
    assert desk.begin(request).returned(b"rubbish") is None
    assert request.answers == [(b"rubbish", False)]
    assert desk.given_up == ["signer desk: its answer is not right for this key and message"]
    assert desk.was_counted


@pytest.mark.parametrize("answer", [None, "signature", 5, [b"signature"]])
def test_answer_that_is_no_bytes(answer: object) -> None:
    desk = Desk(attempts=1)
    assert desk.begin().returned(answer) is None
    kind = type(answer).__name__
    assert desk.given_up == [f"signer desk: it returned {kind}, not bytes: let it return the signature"]


def test_request_from_before_the_trial_makes_no_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(attempts=1, failures=1)
    before = desk.begin()
    desk.begin().raised(OSError())
    monkeypatch.setattr(desk.breaker, "_open_until", 0.0)
    trial = desk.begin()
    before.request.is_open = False  # type: ignore[misc] # of the test's own class
    before.ended()
    assert desk.calls.begin(Request()) is None  # type: ignore[arg-type]
    trial.returned(b"signature")
    assert desk.calls.breaker_state() == "closed"


class _Bytes(bytes):
    def __bytes__(self) -> bytes:
        raise ZeroDivisionError("none of yours")


class _SilentError(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


def test_answer_and_error_that_raise_when_looked_at() -> None:
    """They come from somebody else's code; what they raise would end the thread that looks."""
    desk = Desk(attempts=1)
    assert desk.begin().returned(_Bytes(b"signature")) is None
    assert desk.begin().raised(_SilentError()) is None
    assert desk.given_up == [
        "signer desk: it raised ZeroDivisionError: none of yours",
        "signer desk: it raised _SilentError: (it cannot say why)",
    ]


def test_coroutine_is_no_answer() -> None:
    async def sign() -> bytes:
        return b""

    desk = Desk(attempts=1)
    assert desk.begin().returned(sign()) is None  # and nobody warns that it was never awaited
    assert desk.given_up == ["signer desk: it returned a coroutine: give the coroutine function itself"]


def test_memory_that_is_gone_is_no_answer() -> None:
    desk, view = Desk(attempts=1), memoryview(b"signature")
    view.release()
    assert desk.begin().returned(view) is None
    assert "ValueError" in desk.given_up[0]


def test_function_that_answers_by_itself_returns_nothing() -> None:
    desk, request = Desk(), Request()
    call = desk.begin(request)
    request.complete(b"signature", final=True)
    assert call.returned(None) is None
    assert desk.given_up == []


@pytest.mark.parametrize("error", [LateAnswerError("late"), DoubleAnswerError("twice")])
def test_answer_that_comes_too_late_or_twice_is_left_alone(error: Exception) -> None:
    desk, request = Desk(failures=1), Request()
    request.problem = error
    assert desk.begin(request).returned(b"signature") is None
    assert desk.given_up == []
    assert desk.calls.breaker_state() == "closed"


def test_request_of_another_process_is_a_failure() -> None:
    desk, request = Desk(attempts=1), Request()
    request.problem = ForkedError("of the parent")
    assert desk.begin(request).returned(b"signature") is None
    assert desk.given_up == ["signer desk: it raised ForkedError: of the parent"]


def test_breaker_opens_and_nobody_is_asked() -> None:
    desk = Desk(attempts=1, failures=3)
    calls = [desk.begin() for _ in range(3)]
    for call in calls:
        call.raised(OSError("down"))
    assert desk.calls.breaker_state() == "open"
    request: Any = Request()
    assert desk.calls.begin(request) is None
    assert "is not asked for a while" in desk.given_up[-1]


def test_breaker_ends_retries() -> None:
    desk = Desk(attempts=3, failures=2)
    call, other = desk.begin(), desk.begin()
    for one in (call, other):
        assert one.raised(OSError("down")) is not None
        assert one.begin()
        assert one.raised(OSError("still down")) is not None
    assert not call.begin()
    assert len(desk.given_up) == 1
    assert desk.calls.retries == 2


def test_first_failures_do_not_open_the_breaker() -> None:
    """Kept connections that the other end has closed fail together, and once each."""
    desk = Desk(attempts=2, failures=2)
    calls = [desk.begin() for _ in range(10)]
    for call in calls:
        assert call.raised(ConnectionError("reset")) is not None
    for call in calls:
        assert call.begin()
        assert call.returned(b"signature") is None
    assert desk.calls.breaker_state() == "closed"


def test_refusal_is_not_the_signers_failure() -> None:
    """A client that asks for what the signer does not have keeps nobody from being served."""
    desk = Desk(attempts=3, failures=1)
    assert desk.begin().raised(RequestRefusedError("no rsa_pkcs1_sha1 here")) is None
    assert desk.given_up == ["signer desk: no rsa_pkcs1_sha1 here"]
    assert desk.calls.breaker_state() == "closed"


def test_clients_that_leave_do_not_open_the_breaker() -> None:
    desk = Desk(failures=1)
    for _ in range(3):
        call = desk.begin()
        call.ended()
        call.ended()
    assert desk.calls.breaker_state() == "closed"


def test_function_that_comes_too_late_has_failed() -> None:
    desk = Desk(failures=1)
    request = Request(10)
    call = desk.begin(request)
    call._begun = request.submitted = time.monotonic() - 10
    request.deadline = time.monotonic()
    call.ended()
    assert desk.calls.breaker_state() == "open"


def test_long_queue_is_not_the_functions_failure() -> None:
    desk = Desk(failures=1)
    request = Request(10, waited=9.9)
    call = desk.begin(request)
    request.deadline = time.monotonic()
    call.ended()
    assert desk.calls.breaker_state() == "closed"


def test_trial_that_ends_lets_another_one_try() -> None:
    desk = Desk(attempts=1, failures=1)
    desk.breaker.seconds = 0.0
    desk.begin().raised(OSError())
    assert desk.calls.breaker_state() == "half-open"
    trial, second = desk.begin(), Request()
    asked: Any = second
    assert desk.calls.begin(asked) is None
    trial.ended()  # the client has left
    desk.begin().returned(b"signature")
    assert desk.calls.breaker_state() == "closed"


def test_nobody_is_asked_for_what_nobody_waits_for() -> None:
    desk, request = Desk(), Request()
    request.is_open = False
    asked: Any = request
    assert desk.calls.begin(asked) is None
    assert desk.given_up == []


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_end_of_the_process_is_told_and_not_tried_again(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk()
    assert desk.begin().raised(error()) is None
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert f"it raised {error.__name__}" in record.getMessage()
    assert "this ends no process" in desk.given_up[0]


class Silent(Exception):  # noqa: N818 - what somebody else might write
    def __str__(self) -> str:
        message = "not even that"
        raise ValueError(message)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError("two\nlines\r\n of  text"), "OSError: two lines of text"),
        (OSError(), "OSError: (it says no more)"),
        (Silent(), "Silent: (it cannot say why)"),
    ],
)
def test_reason_is_one_line(error: Exception, text: str) -> None:
    desk = Desk(attempts=1)
    desk.begin().raised(error)
    assert desk.given_up == [f"signer desk: it raised {text}"]


def test_log_has_each_kind_once_a_minute(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(attempts=1, failures=1000)
    for _ in range(100):
        desk.begin().raised(OSError("down"))
        desk.begin().raised(KeyError("which"))
    assert len(caplog.records) == 2
    assert all(record.exc_info is None for record in caplog.records)  # one line each
    later = time.monotonic() + 61
    monkeypatch.setattr("tlsserver.signers.callable_calls.time.monotonic", lambda: later)
    desk.begin().raised(OSError("still down"))
    assert "still down (and 99 times more" in caplog.records[-1].getMessage()
