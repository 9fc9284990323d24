"""The demo site: shows visitors their own connection, and the server's counters as they move.

Everything comes from this package, and the Content-Security-Policy lets the page load nothing else. Without JavaScript
the page shows the same as it was when it was loaded.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from html import escape
from string import Template
from typing import TYPE_CHECKING, Any

from tlsserver.protocols.base import scheduler_of
from tlsserver.protocols.messages import Response
from tlsserver.site import assets
from tlsserver.site.feed import Feed
from tlsserver.site.visitor import Visitor

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsserver.protocols.messages import Handler, Headers, Request

_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SECURITY: Headers = (
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
_FRESH = (("Cache-Control", "no-store"), *_SECURITY)
_STATIC = (("Cache-Control", "no-cache"), *_SECURITY)
_ASSETS = {
    "/page.css": "text/css; charset=utf-8",
    "/page.js": "text/javascript; charset=utf-8",
    "/icon.svg": "image/svg+xml",
}
_COUNTERS = {
    "handshakes_completed": "handshakes completed",
    "handshakes_parked": "handshakes parked",
    "handshakes_failed": "handshakes failed",
    "ops_performed": "operations performed",
    "ops_cancelled": "operations cancelled",
    "connections_open": "connections open",
}
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?", re.ASCII)


def site(statistics: Callable[[], dict[str, Any]], engine: str, linkage: str, openssl: str) -> Handler:
    """Return the handler of the demo site.

    Args:
        statistics: Gives the counters (see `tlsserver.Statistics.as_dict`).
        engine: Name of the engine, or "off".
        linkage: How OpenSSL is reached.
        openssl: OpenSSL's version.
    """
    return _Demo(statistics, engine=engine, linkage=linkage, openssl=openssl).answer


class _Demo:
    def __init__(self, statistics: Callable[[], dict[str, Any]], **facts: str) -> None:
        self._statistics = statistics
        self._facts = facts
        self._feed = Feed(statistics)
        self._page = Template(assets.text("page.html"))
        self._routes: dict[str, Handler] = {
            "/": self._index,
            "/events": self._events,
            "/statistics.json": lambda _: _json(self._statistics()),
            "/connection.json": lambda request: _json(asdict(self._visitor(request))),
            **{path: _asset(path[1:], kind) for path, kind in _ASSETS.items()},
        }

    def answer(self, request: Request) -> Response:
        route = self._routes.get(request.path)
        if route is None:
            return Response.plain(404, _SECURITY)
        if request.method not in {"GET", "HEAD"}:
            return Response.plain(405, (("Allow", "GET, HEAD"), *_SECURITY))
        return route(request)

    def _visitor(self, request: Request) -> Visitor:
        return Visitor.of(request.transport, **self._facts)

    def _index(self, request: Request) -> Response:
        visitor, statistics = self._visitor(request), self._statistics()
        host = request.header("host") or ""
        html = self._page.substitute(
            headline=escape(visitor.headline),
            steps="\n".join(_step(*step) for step in visitor.steps),
            rows="\n".join(f"<tr><th scope=row>{escape(k)}<td>{escape(v)}" for k, v in visitor.rows),
            parked_now=f"{statistics['parked_now']:,}",
            parked_max=f"{statistics['parked_max']:,}",
            counters="\n".join(_counter(name, text, statistics[name]) for name, text in _COUNTERS.items()),
            host=escape(host if _HOST.fullmatch(host) else "localhost:8443"),
            keys=escape(visitor.keys),
        )
        return Response(200, (("Content-Type", "text/html; charset=utf-8"), *_FRESH), html.encode())

    def _events(self, request: Request) -> Response:
        if request.method == "HEAD":
            return Response(200, (("Content-Type", "text/event-stream"), *_FRESH))
        stream = self._feed.subscribe(scheduler_of(request.transport))
        if stream is None:
            return Response.plain(503, (("Retry-After", "10"), *_FRESH))
        return Response(200, (("Content-Type", "text/event-stream"), *_FRESH), stream)


def _asset(name: str, kind: str) -> Handler:
    response = Response(200, (("Content-Type", kind), *_STATIC), assets.text(name).encode())
    return lambda _: response


def _json(value: dict[str, Any]) -> Response:
    return Response(200, (("Content-Type", "application/json"), *_FRESH), json.dumps(value, indent=2).encode() + b"\n")


def _step(name: str, text: str, is_parked: bool) -> str:
    mark = ' class="parked"' if is_parked else ""
    return f"<li{mark}><strong>{escape(name)}</strong> <span>{escape(text)}</span>"


def _counter(name: str, text: str, value: int) -> str:
    return f'<div><dt>{escape(text)}<dd data-counter="{escape(name)}">{value:,}</div>'
