"""An application that says what it was told, and lets a test see how its requests end."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import threading
from typing import Any

from support.leaks import wait_until

CHUNKS = 64
CHUNK = bytes(range(256)) * 64


class Events:
    """What has happened to the requests of this process, in order."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def expect(self, event: str) -> None:
        """Wait until it has happened last."""
        wait_until(lambda: self.seen[-1:] == [event])
        assert self.seen[-1:] == [event]


EVENTS = Events()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """ASGI 3."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "websocket":
        await _websocket(scope, receive, send)
    else:
        await ROUTES.get(scope["path"], _hello)(scope, receive, send)


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        kind = (await receive())["type"]
        EVENTS.seen.append(kind)
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def answer(send: Any, body: bytes, kind: bytes = b"text/plain") -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _hello(_scope: Any, _receive: Any, send: Any) -> None:
    await answer(send, b"hello")


def told(scope: Any) -> dict[str, Any]:
    """What a request says of its connection, for JSON."""
    extensions = scope.get("extensions") or {}
    ours = extensions.get("tlsserver", {})
    certificate = ours.get("client_certificate")
    return {
        "tls": extensions.get("tls"),
        "others": sorted(set(extensions) - {"tls", "tlsserver"}),
        "version": ours["tls"].version if ours else None,
        "subject": certificate.subject if certificate else None,
        "scheme": scope["scheme"],
        "http_version": scope.get("http_version"),
        "client": scope["client"],
    }


async def _told(scope: Any, _receive: Any, send: Any) -> None:
    await answer(send, json.dumps(told(scope)).encode(), b"application/json")


async def _upload(_scope: Any, receive: Any, send: Any) -> None:
    digest, length = hashlib.sha256(), 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            EVENTS.seen.append("upload cut off")
            return
        digest.update(message.get("body", b""))
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    await answer(send, f"{length} {digest.hexdigest()}".encode())


async def _stream(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(CHUNKS):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _until_gone(_scope: Any, receive: Any, send: Any) -> None:
    """Answer the head, then wait until the client has left."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun\n", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass
    EVENTS.seen.append("client gone")


async def _events(_scope: Any, _receive: Any, send: Any) -> None:
    await answer(send, json.dumps(EVENTS.seen).encode(), b"application/json")


async def _held_up(_scope: Any, _receive: Any, _send: Any) -> None:
    """Hold up the loop for ever, and say so."""
    os.write(1, b"held up\n")
    threading.Event().wait()


async def _websocket(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text == "told":
            await send({"type": "websocket.send", "text": json.dumps(told(scope))})
        elif text is not None:
            await send({"type": "websocket.send", "text": text})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})
    EVENTS.seen.append(f"websocket {message['code']}")


ROUTES = {
    "/told": _told,
    "/upload": _upload,
    "/stream": _stream,
    "/until-gone": _until_gone,
    "/events": _events,
    "/held-up": _held_up,
}


async def failing(_scope: Any, receive: Any, send: Any) -> None:
    """Refuses to start."""
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


def make() -> Any:
    """A factory."""
    return app


def asgi2(scope: Any) -> Any:
    """ASGI 2."""

    async def instance(receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    return instance


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """WSGI: says what its environ holds of TLS, and how much was sent."""
    length = len(environ["wsgi.input"].read()) if environ["REQUEST_METHOD"] == "POST" else 0
    shown = {name: value for name, value in environ.items() if name.startswith(("SSL_", "HTTPS", "wsgi.url_scheme"))}
    body = json.dumps({**shown, "length": length}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def end_wsgi_threads() -> None:
    """Wait for the threads of a2wsgi, which end when its middleware is collected: others count threads."""
    gc.collect()
    wait_until(lambda: not any(thread.name.startswith("WSGI") for thread in threading.enumerate()))


not_callable = 1


def no_arguments_needed(*_: Any) -> None:
    """Nobody can tell what it is called with."""
