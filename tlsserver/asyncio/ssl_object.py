"""Stub."""

from __future__ import annotations


class SSLObject:
    def __init__(self, context, tls, info, chain, *, server_side, server_hostname):
        self.info = info
        self.chain = chain

    def getpeercert(self):
        return {}

    def cipher(self):
        return (self.info.cipher, self.info.version, 256)

    def compression(self):
        return None

    def version(self):
        return self.info.version

    def selected_alpn_protocol(self):
        return self.info.alpn
