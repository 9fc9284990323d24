"""Many handshakes at a slow key under Twisted, in a process of its own: others go on, and nothing is left.

The bounds are those of a machine with other work to do. Each handshake that blocked would cost the others 200 ms.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import pytest

from support.clients import Target, client_hello, reset
from support.echoes import Echoes
from support.running import PATIENCE
from support.storm import Storm

pytest.importorskip("twisted.protocols.tls", reason="Twisted cannot use this pyOpenSSL for TLS")

from support.twisted_child import TwistedChild

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.certificates import Certificates, Identity

COUNT, SECONDS = 200, 0.2


@pytest.fixture(scope="module")
def server(certificates: Certificates) -> Iterator[TwistedChild]:
    with TwistedChild(certificates["p256"], SECONDS) as made:
        yield made


def client(identity: Identity) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(identity.ca))


@pytest.mark.serial
def test_others_go_on(identity: Identity, server: TwistedChild) -> None:
    context = client(identity)
    before = server.report()["handshakes"]
    with Echoes(server.address[1], identity) as echoes, Storm(server.address, COUNT, context) as storm:
        echoes.report()
        finished = storm.handshake()[-1]
        told = sorted(echoes.report())
    p90 = told[int(len(told) * 0.9)]  # of less than a hundred: the worst one or two are the machine's
    figures = f"{COUNT} handshakes in {finished:.2f} s, echo p90 {p90 * 1000:.1f} ms of {len(told)}"
    assert finished < COUNT * SECONDS / 10, figures
    assert p90 < SECONDS, figures
    report = server.report()
    assert (report["handshakes"] - before, report["in_progress"], report["jobs"]) == (COUNT + 1, 0, 0)
    assert report["parked_max"] > COUNT / 4


def test_nothing_is_left_of_those_who_leave(identity: Identity, server: TwistedChild) -> None:
    hello = client_hello(Target(server.address[1], identity, "1.3"))

    def round_of_leavers() -> dict[str, int]:
        for said in (b"", hello[:40], hello):
            for leave in (socket.socket.close, reset):
                sockets = [socket.create_connection(server.address, PATIENCE) for _ in range(30)]
                for sock in sockets:
                    sock.sendall(said)
                for sock in sockets:
                    leave(sock)
        with Storm(server.address, 1, client(identity)) as one:
            one.handshake()  # so all before it were accepted
        report = server.report()
        while report["in_progress"]:
            report = server.report()
        return report

    first = round_of_leavers()
    second = round_of_leavers()
    assert second["jobs"] == 0
    assert second["descriptors"] <= first["descriptors"] + 5
