"""A remote signer on a loop that the test turns by hand, and handshakes that ask it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from engine_shim import Status
from support.asking import said
from support.leaks import PATIENCE
from support.pair import Pair, client_context, server_context
from tlsserver.reactor import Reactor
from tlsserver.signers.remote import RemoteSigner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

    from support.certificates import Identity
    from tlsserver.signers.remote_pool import Pool
    from tlsserver.stats import SignerNumbers


class Scene:
    """A context manager.

    Args:
        identity: Of the handshakes' server.
        addresses: Of the key servers.
        options: Of the signer.
    """

    def __init__(self, identity: Identity, addresses: Sequence[str], **options: Any) -> None:
        self.identity = identity
        self.signer = RemoteSigner(addresses, **{"deadline": 20.0, **options})
        self.key = self.signer.load_key(identity.cert)
        self.reactor = Reactor()
        self.leave = self.signer.join(self.reactor)
        self._pairs: list[Pair] = []

    @property
    def pool(self) -> Pool:
        return self.signer._pools[0]

    def numbers(self, index: int = 0) -> SignerNumbers:
        return self.signer.signers()[index]

    def until(self, condition: Callable[[], object]) -> None:
        """Turn the loop until it holds."""
        give_up = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < give_up, f"it did not come to that: {self.signer.signers()}"
            self.reactor.run_turn(0.005)

    def until_up(self, *indices: int) -> None:
        """Turn the loop until key servers are up."""
        self.until(lambda: all(self.numbers(index).state == "up" for index in indices or (0,)))

    def begin(self, version: str | None = None, ciphers: str | None = None) -> Pair:
        """Begin a handshake, as far as its request."""
        pair = Pair(server_context(self.identity, self.key, ciphers), client_context(self.identity, version, ciphers))
        self._pairs.append(pair)
        assert pair.until_parked() is Status.WANT_ASYNC
        return pair

    def end(self, pair: Pair) -> Status:
        """Turn the loop until the handshake is at its end."""
        self.until(pair.signalled)
        return pair.until_parked()

    def handshake(self, version: str | None = None, ciphers: str | None = None) -> None:
        """Do one handshake, which must be good."""
        pair = self.begin(version, ciphers)
        assert self.end(pair) is Status.DONE, said(pair)
        assert pair.echo(b"signed elsewhere") == b"signed elsewhere"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pair in self._pairs:
            pair.close()
        self.leave()
        self.signer.close()
        self.reactor.close()
