"""Signers that are functions, for the tests: what they are asked is seen, and when they answer is the test's choice."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from support.asking import private_key, sign
from support.pair import Pair, client_context, server_context
from support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine_shim import SignRequest
    from support.certificates import Identity
    from tlsserver.signers.callable import CallableSigner


class Function:
    """Signs with another library; a plain function.

    Args:
        identity: Whose key it has.
        before: Is called with each request first.

    Attributes:
        asked: Each request so far, by its scheme.
    """

    def __init__(self, identity: Identity, before: Callable[[SignRequest], object] | None = None) -> None:
        self._key = private_key(identity)
        self._before = before
        self.asked: list[str] = []

    def __call__(self, request: SignRequest) -> bytes:
        self.asked.append(request.scheme)
        if self._before is not None:
            self._before(request)
        return sign(request, self._key)


class LaterFunction(Function):
    """The same as a coroutine function; what it calls first may be one as well."""

    async def __call__(self, request: SignRequest) -> bytes:  # type: ignore[override]
        self.asked.append(request.scheme)
        if self._before is not None:
            waited: Any = self._before(request)
            if waited is not None:
                await waited
        return sign(request, self._key)


class Gate:
    """Holds up whoever comes, until it is opened."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._arrivals = threading.Semaphore(0)

    def __call__(self, request: SignRequest) -> None:
        del request
        self._arrivals.release()
        assert self._open.wait(PATIENCE)

    def wait_for(self, count: int = 1) -> None:
        """Wait until so many more have come."""
        for _ in range(count):
            assert self._arrivals.acquire(timeout=PATIENCE)

    def open(self) -> None:
        """Let all go on."""
        self._open.set()


def pair_with(signer: CallableSigner, identity: Identity, version: str | None = None) -> Pair:
    """Make both ends of a connection whose key the signer has."""
    key = signer.load_key(identity.cert)
    return Pair(server_context(identity, key), client_context(identity, version))
