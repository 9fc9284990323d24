"""The one request that a connection makes, and when its answer is complete (h11)."""

from __future__ import annotations

import h11


def make_request(host: str, path: str = "/") -> bytes:
    """Make a GET after whose answer the server closes (RFC 9112)."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tlsserver-bench\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    ).encode()


class Answer:
    """What comes back for one request."""

    __slots__ = ("_http", "is_complete", "status")

    def __init__(self) -> None:
        self._http = h11.Connection(h11.CLIENT)
        self._http.send(h11.Request(method="GET", target="/", headers=[("Host", "-"), ("Connection", "close")]))
        self._http.send(h11.EndOfMessage())
        self.is_complete = False
        self.status = 0

    def feed(self, data: bytes) -> None:
        """Take what has come; nothing: the server has closed.

        Raises:
            h11.RemoteProtocolError: It is no HTTP, or ends too early.
        """
        self._http.receive_data(data)
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Response):
                self.status = event.status_code
            self.is_complete = self.is_complete or isinstance(event, h11.EndOfMessage)
            if (
                event is h11.NEED_DATA
                or event is h11.PAUSED
                or isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed))
            ):
                return
