"""Twisted, on pyOpenSSL as we are: PORT CERTIFICATE KEY."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet import protocol, reactor, ssl

_reactor: Any = reactor  # its type is that of the module
_ssl: Any = ssl


class Echo(protocol.Protocol):
    transport: Any

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        self.transport.write(data)


def main(port: str, certificate: str, key: str) -> None:
    pem = Path(key).read_bytes() + Path(certificate).read_bytes()
    options = _ssl.PrivateCertificate.loadPEM(pem).options()
    _reactor.listenSSL(int(port), protocol.Factory.forProtocol(Echo), options, backlog=4096, interface="127.0.0.1")
    _reactor.run()


main(*sys.argv[1:])
