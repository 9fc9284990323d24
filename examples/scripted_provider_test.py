"""Test how a server behaves with an asynchronous OpenSSL provider: slow, woken for nothing, and left by its client.

`python examples/scripted_provider_test.py cert.pem key.pem`
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading

import tlsserver
from tlsserver.protocols.echo import EchoProtocol
from tlsserver.testing import HELD, Script, ScriptedProvider


def client(address: tuple[str, int], message: bytes, echoed: list[bytes]) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(address) as raw, context.wrap_socket(raw) as tls:
        tls.sendall(message)
        echoed.append(tls.recv(100))


def leave(address: tuple[str, int], scripted: ScriptedProvider) -> None:
    """Begin a handshake, and leave while the server's key is at work."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(address) as raw:
        tls = context.wrap_socket(raw, do_handshake_on_connect=False)
        tls.setblocking(False)
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            scripted.wait()  # until the signature has paused
        tls.close()


def wait_until(server: tlsserver.Server, draining: int) -> None:
    moment = threading.Event()
    while server.statistics().draining_now != draining:
        moment.wait(0.001)


def main(certificate: str, key: str) -> None:
    echoed: list[bytes] = []
    with ScriptedProvider() as scripted:
        context = tlsserver.TLSContext(certificate, scripted.load_key(key))
        with tlsserver.Server(context, EchoProtocol, port=0) as server:
            scripted.script(HELD)  # the first handshake's signature pauses until the test says more: never
            leave(server.address, scripted)
            wait_until(server, draining=1)  # the client is gone, its operation is not
            scripted.script(Script(told=False, pauses=3, fds=2))  # meanwhile another one: slow, with two wait fds
            client(server.address, b"served meanwhile", echoed)
            scripted.complete()
            wait_until(server, draining=0)
        assert scripted.counts().fds_open == 0
    print(echoed[0].decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
