"""A WSGI server of cheroot's on a thread, whose application answers with what it was asked for."""

from __future__ import annotations

import json
import logging
import threading
from typing import TYPE_CHECKING, Any

from cheroot import wsgi

from support import leaks
from tlsserver.integrations.cheroot import Adapter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Self

    from tlsserver import TLSContext


class CherootSite:
    """A context manager.

    Args:
        context: Of the server.
        threads: How many workers.
        options: Of the adapter.

    Attributes:
        adapter: The adapter.
        server: cheroot's.
        port: Where it listens, on 127.0.0.1.
        errors: What cheroot has written to its log.
    """

    def __init__(self, context: TLSContext, *, threads: int = 4, **options: Any) -> None:
        self.adapter = Adapter(context, **options)
        self.errors: list[str] = []
        server: Any = wsgi.Server(("127.0.0.1", 0), self._application, numthreads=threads)
        self.server = server
        self.server.ssl_adapter = self.adapter
        self.server.request_queue_size = 100
        self.server.expiration_interval = 0.01
        self.server.error_log = lambda msg="", level=20, traceback=False: self.errors.append(msg)  # noqa: ARG005

    def _application(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer with the body, or with the environ's texts as JSON where there is none."""
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        told = {name: value for name, value in environ.items() if isinstance(value, str)}
        answer = body or json.dumps(told).encode()
        start_response("200 OK", [("Content-Length", str(len(answer))), ("Content-Type", "application/octet-stream")])
        return [answer]

    def __enter__(self) -> Self:
        before = set(threading.enumerate())
        self.server.prepare()
        self.port: int = self.server.bind_addr[1]
        self._thread = threading.Thread(target=self.server.serve)
        self._thread.start()
        # One of cheroot's own, which it does not wait for: it answers those whom no worker takes.
        leaks.wait_until(lambda: len(self._started(before)) > self.server.requests.min + 1)
        self._threads = self._started(before)
        return self

    def _started(self, before: set[threading.Thread]) -> set[threading.Thread]:
        return set(threading.enumerate()) - before

    def __exit__(self, *_: object) -> None:
        self.server.stop()
        for thread in self._threads:
            thread.join(leaks.PATIENCE)
        self.adapter.close()
        # There cheroot keeps every server of the process.
        logging.statistics.clear()  # type: ignore[attr-defined]

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return ("127.0.0.1", self.port)

    def until_idle(self) -> None:
        """Wait until every worker waits for work."""
        pool = self.server.requests
        leaks.wait_until(lambda: pool.idle == len(pool._threads) and not pool.qsize)
        assert pool.idle == len(pool._threads)
