"""The demo site: what visitors see of their connection, and the live counters."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from helpers_web import Connections, FakeScheduler, Reply, Wire, get, request_of

from tlsserver.protocols.http1 import Http1Protocol
from tlsserver.protocols.stream import EventStream
from tlsserver.site import assets, demo, feed
from tlsserver.site.visitor import Visitor, milliseconds
from tlsserver.stats import Counters, EngineNumbers

if TYPE_CHECKING:
    from tlsserver.protocols.messages import Handler

SEEN: dict[str, Any] = {"tls": Connections.tls, "park": Connections.parked, "peername": ("192.0.2.1", 5000)}


class Server:
    """The statistics of a server, and the site that shows them."""

    def __init__(self, engine: str = "threads") -> None:
        self.counters = Counters()
        self.site: Handler = demo.site(self.statistics, engine, "static", "OpenSSL 4.0.3 9 Sep 2026")

    def statistics(self) -> dict[str, Any]:
        return self.counters.snapshot(EngineNumbers(ops_performed=7)).as_dict()

    def ask(self, target: str = "/", *headers: str, method: str = "GET") -> Reply:
        return request_of(self.site, target, *headers, method=method, **SEEN)

    def watch(self) -> Wire:
        return Wire(Http1Protocol(self.site), **SEEN).feed(get("/events"))


# The page.


def table(page: str) -> dict[str, str]:
    return dict(re.findall(r"<tr><th scope=row>(.*?)<td>(.*)", page))


def test_the_page_shows_the_connection_without_a_script() -> None:
    reply = Server().ask()
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    page = reply.body.decode()
    assert table(page) == {
        "Protocol": "TLS 1.3",
        "Cipher suite": "TLS_AES_256_GCM_SHA384",
        "Key exchange": "X25519MLKEM768, post-quantum",
        "Application": "http/1.1",
        "Server name": "localhost",
        "Session": "new",
        "Handshake": "parked once, for 1.80\u00a0ms",
        "Engine": "threads",
        "Linkage": "static",
        "OpenSSL": "4.0.3 (9 Sep 2026)",
        "Your address": "192.0.2.1:5000",
    }
    assert "Your handshake waited 1.80\u00a0ms" in page


def test_the_page_has_the_counters_of_now() -> None:
    server = Server()
    server.counters.handshakes_completed = 12_345
    server.counters.parked_now = 67
    page = server.ask().body.decode()
    assert '<dd data-counter="handshakes_completed">12,345' in page
    assert re.search(r'<output id="parked"[^>]*>67<', page)


@pytest.mark.parametrize(
    "target", ["/", "/page.css", "/page.js", "/icon.svg", "/events", "/connection.json", "/missing"]
)
def test_nothing_may_be_loaded_from_elsewhere(target: str) -> None:
    reply = Server().ask(target, method="HEAD")
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["page.html", "page.css", "page.js", "icon.svg"])
def test_the_assets_name_no_other_host_and_the_page_has_nothing_inline(name: str) -> None:
    text = assets.text(name).replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"(https?:)?//[a-z]", text.replace("https://$host", ""))
    assert not re.search(r"<style|style=|\son[a-z]+=|<script(?! src)", text)


def test_what_a_client_sends_is_escaped() -> None:
    tls = type(Connections.tls)(**{**vars(Connections.tls), "server_name": "<script>alert(1)</script>"})
    protocol = Http1Protocol(Server().site)
    page = Wire(protocol, tls=tls, peername=("<b>", 1)).feed(get("/")).reply().body.decode()
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert "<b>" not in page


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("example:8443", "example:8443"),
        ("[::1]:8443", "[::1]:8443"),
        ("x; rm -rf /", "localhost:8443"),
        ("<b>", "localhost:8443"),
        ("$(id)", "localhost:8443"),
    ],
)
def test_the_command_to_copy_holds_no_surprise(host: str, shown: str) -> None:
    request = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    page = Wire(Http1Protocol(Server().site)).feed(request).reply().body.decode()
    assert f"https://{shown}/" in page


# What it says of a connection.


def visitor(engine: str = "threads", **facts: Any) -> Visitor:
    known = {
        "version": "TLSv1.2",
        "cipher": "C",
        "group": "x25519",
        "alpn": None,
        "server_name": None,
        "resumed": False,
    }
    rest = {"parks": 0, "park_seconds": 0.0, "linkage": "shared", "openssl": "3.0", "address": None}
    return Visitor(**{**known, **rest, "engine": engine, **facts})


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (visitor(), "did not have to wait"),
        (visitor("off"), "signed on the loop itself"),
        (visitor(resumed=True, group=None), "You came back"),
        (visitor(parks=2, park_seconds=0.2), "waited 200\u00a0ms"),
    ],
)
def test_headlines(seen: Visitor, words: str) -> None:
    assert words in seen.headline
    assert len(seen.steps) == 3
    assert any(is_parked for _, _, is_parked in seen.steps) == (seen.parks > 0)


def test_rows_for_what_was_not_negotiated() -> None:
    rows = dict(visitor(resumed=True, group=None, parks=2, park_seconds=0.2).rows)
    assert rows["Session"] == "resumed"
    assert rows["Key exchange"] == "none"
    assert rows["Application"] == "none negotiated"
    assert rows["Server name"] == "none sent"
    assert rows["Handshake"] == "parked twice, for 200\u00a0ms"
    assert rows["OpenSSL"] == "3.0"
    assert dict(visitor(parks=3).rows)["Handshake"].startswith("parked 3 times")


def test_a_connection_of_which_nothing_is_known() -> None:
    page = Wire(Http1Protocol(Server("off").site)).feed(get("/")).reply().body.decode()
    assert table(page)["Protocol"] == "unknown"
    assert "no engine is set" in page


@pytest.mark.parametrize(
    ("peername", "shown"),
    [(("::1", 5, 0, 0), "[::1]:5"), (("127.0.0.1", 5), "127.0.0.1:5"), ("", None), ("/run/socket", "/run/socket")],
)
def test_addresses(peername: object, shown: str | None) -> None:
    reply = Wire(Http1Protocol(Server().site), peername=peername).feed(get("/connection.json")).reply()
    assert json.loads(reply.body)["address"] == shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.00 ms"), (0.00183, "1.83 ms"), (0.0421, "42.1 ms"), (0.2004, "200 ms"), (3.0, "3000 ms")],
)
def test_milliseconds(seconds: float, text: str) -> None:
    assert milliseconds(seconds).replace("\u00a0", " ") == text


# Data.


def test_connection_json() -> None:
    reply = Server().ask("/connection.json")
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-store"
    assert json.loads(reply.body) == {
        "version": "TLSv1.3",
        "cipher": "TLS_AES_256_GCM_SHA384",
        "group": "X25519MLKEM768",
        "alpn": "http/1.1",
        "server_name": "localhost",
        "resumed": False,
        "parks": 1,
        "park_seconds": 0.0018,
        "engine": "threads",
        "linkage": "static",
        "openssl": "OpenSSL 4.0.3 9 Sep 2026",
        "address": "192.0.2.1:5000",
        "client_subject": None,
        "client_sans": [],
    }


def test_statistics_json() -> None:
    server = Server()
    server.counters.park_seconds.observe(0.003)
    found = json.loads(server.ask("/statistics.json").body)
    assert found == server.statistics()
    assert found["ops_performed"] == 7
    assert sum(found["park_seconds"]["counts"]) == found["park_seconds"]["count"] == 1


def test_what_is_not_there_and_what_is_not_allowed() -> None:
    server = Server()
    assert server.ask("/missing").status == 404
    assert server.ask("/page.html").status == 404
    reply = server.ask("/", method="POST")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


# Events.


def events(wire: Wire) -> list[tuple[str, Any]]:
    raw = bytes(wire.transport.written).partition(b"\r\n\r\n")[2]
    text = b"".join(raw.split(b"\r\n")[1::2]).decode()
    return [(name, json.loads(data)) for name, data in re.findall(r"event: (.*)\ndata: (.*)\n\n", text)]


def test_a_viewer_gets_the_last_minute_and_then_a_sample_each_second() -> None:
    server = Server()
    wire = server.watch()
    assert b"Content-Type: text/event-stream\r\n" in wire.transport.written
    assert [name for name, _ in events(wire)] == ["history", "sample"]
    server.counters.handshakes_completed = 5
    server.counters.parked_now = 2
    wire.loop.advance(feed.INTERVAL)
    name, sample = events(wire)[-1]
    assert (name, sample["handshakes_completed"], sample["parked_now"]) == ("sample", 5, 2)
    assert sample["time"] == wire.loop.now
    assert set(server.statistics()) < set(sample)
    wire.loop.advance(70)
    second = Wire(Http1Protocol(server.site))
    second.loop = wire.loop
    second.transport.extra["reactor"] = wire.loop
    second.protocol.connection_made(second.transport)
    second.feed(get("/events"))
    (name, history), *_ = events(second)
    assert name == "history"
    assert len(history) >= 60
    assert history[0][0] >= wire.loop.now - feed.HISTORY
    assert history[-1] == [wire.loop.now, 5, 2]


def test_one_timer_serves_all_viewers_and_stops_with_the_last() -> None:
    loop = FakeScheduler()
    source = feed.Feed(Server().statistics)
    viewers = [source.subscribe(loop) for _ in range(3)]
    loop.advance(3)
    assert loop.timers == 1
    for viewer in viewers:
        assert viewer is not None
        assert (viewer.pull() or b"").count(b"event: sample") == 4
        viewer.close()
    assert source.viewers == 0
    loop.advance(feed.INTERVAL)
    assert loop.timers == 0
    assert source.subscribe(loop)
    assert loop.timers == 1


def test_too_many_viewers_are_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MOST_VIEWERS", 2)
    server = Server()
    first, second = server.watch(), server.watch()
    refused = server.watch().reply()
    assert (refused.status, refused.headers["retry-after"]) == (503, "10")
    first.eof()
    assert first.transport.closed
    assert b"200 OK" in server.watch().transport.written
    second.lose()


def test_a_viewer_that_does_not_read_misses_samples_and_is_dropped() -> None:
    wire = Server().watch()
    wire.transport.room = 0
    wire.loop.advance(30)
    assert wire.transport.unsent < 64 * 1024
    wire.loop.advance(60)
    assert wire.transport.aborted
    assert wire.loop.timers == 0


def test_head_of_the_events_is_no_viewer() -> None:
    assert Server().ask("/events", method="HEAD").headers["content-type"] == "text/event-stream"


# Server-sent events as such.


def test_events_keep_their_form() -> None:
    stream = EventStream()
    stream.send_event("one\r\ntwo\rthree\n", "kind")
    stream.send_comment("still\nthere")
    assert stream.pull() == b"event: kind\ndata: one\ndata: two\ndata: three\ndata: \n\n: still there\n\n"
    for bad in ("a\nb", "a\rdata: b", "", "a\u2028b"):
        with pytest.raises(ValueError, match="one line"):
            stream.send_event("x", bad)
