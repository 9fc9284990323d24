"""The examples of servers of others, run as their users would."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import pytest
from test_examples import start

from support import web_clients
from support.web_clients import http_client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.certificates import Identity
    from support.client_scene import House


class Example:
    """One that is running."""

    def __init__(self, name: str, *arguments: Path) -> None:
        self._process = start(name, *arguments, 0)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = re.search(r":(\d+)/?$", line.strip())
        assert found, self._process.communicate()[1]
        self.port = int(found[1])

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        _, errors = self._process.communicate(timeout=30)
        assert errors == ""
        assert self._process.returncode in {0, -signal.SIGTERM}, "uvicorn ends by the signal that it has heeded"


@pytest.fixture
def example(request: pytest.FixtureRequest, identity: Identity, house: House) -> Iterator[Example]:
    more = [house.root.cert] if request.param == "uvicorn_app.py" else []
    running = Example(request.param, identity.cert, identity.key, *more)
    yield running
    running.stop()


@pytest.mark.parametrize("example", ["uvicorn_app.py"], indirect=True)
def test_uvicorn_app(example: Example, identity: Identity, house: House) -> None:
    with http_client(example.port, identity, holder=house.good) as client:
        assert re.fullmatch("hello CN=good, over TLS 0x0304 with suite 0x13..\n", client.get("/").text)
    with http_client(example.port, identity, "1.2") as client:
        assert client.get("/").text.startswith("hello whoever you are, over TLS 0x0303")


@pytest.mark.parametrize("example", ["hypercorn_http2.py"], indirect=True)
def test_hypercorn_http2(example: Example, identity: Identity) -> None:
    url = f"https://localhost:{example.port}/"
    for option, version in (("--http2", "2"), ("--http1.1", "1.1")):
        said = web_clients.run("curl", "-s", option, "--cacert", identity.ca, url)
        assert said == f"HTTP/{version} over TLS 0x0304\n"


@pytest.mark.parametrize("example", ["aiohttp_site.py"], indirect=True)
def test_aiohttp_site(example: Example, identity: Identity) -> None:
    with http_client(example.port, identity) as client:
        assert client.get("/").text == "hello over TLSv1.3, by https\n"
