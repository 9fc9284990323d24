"""Stub."""

from __future__ import annotations
import ssl


class SSLContext(ssl.SSLContext):
    def __new__(cls, *, offload="off"):
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, *, offload="off"):
        self.offload = offload

    def load_cert_chain(self, cert, key):
        import engine_shim
        from tlsserver import TLSContext

        engine = {
            "off": lambda: None,
            "batch": lambda: engine_shim.BatchEngine(0),
            "threads": lambda: engine_shim.ThreadEngine(1),
        }[self.offload]()
        self.made = TLSContext(cert, key, engine=engine)

    def server_context(self):
        return self.made

    def client_context(self):
        raise NotImplementedError
