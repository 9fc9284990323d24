"""Test what a client does while the server's key is slow: the test decides when the engine answers.

`python examples/slow_key_test.py cert.pem key.pem`
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading

import engine_shim
import tlsserver
from tlsserver.protocols.echo import EchoProtocol


def wait_for(condition: threading.Event, engine: engine_shim.ManualEngine, count: int) -> None:
    """Wait until that many handshakes ask for the key."""
    while engine.pending < count and not condition.wait(0.001):
        pass


def client(address: tuple[str, int], name: str, done: list[str]) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(address) as raw, context.wrap_socket(raw) as tls:
        tls.sendall(name.encode())
        done.append(tls.recv(100).decode())


def main(certificate: str, key: str) -> None:
    done: list[str] = []
    with engine_shim.ManualEngine() as engine:
        context = tlsserver.TLSContext(certificate, engine.load_key(key))
        with tlsserver.Server(context, EchoProtocol, port=0) as server:
            threads = []
            for number, name in enumerate(["first", "second", "third"], 1):
                threads.append(threading.Thread(target=client, args=(server.address, name, done)))
                threads[-1].start()
                wait_for(threading.Event(), engine, number)
            assert server.statistics().parked_now == 3
            for index in (2, 1, 0):  # the last one first: a FIFO signer would not let you try that
                engine.perform(index)
                threads[index].join()
    print(" ".join(done))
    assert done == ["third", "second", "first"]


if __name__ == "__main__":
    main(*sys.argv[1:])
