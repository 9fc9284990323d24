import ssl
from tlsserver.context import TLSContext
from tlsserver import ClientCertificates


class SSLContext(ssl.SSLContext):
    def __new__(cls, protocol=ssl.PROTOCOL_TLS_SERVER, **k):
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, protocol=ssl.PROTOCOL_TLS_SERVER, **k):
        self._o = {}
        self._c = None
        self._given = None
        self._vm = 0
        self._ca = None

    @classmethod
    def from_context(cls, c):
        x = cls()
        x._given = c
        return x

    def load_cert_chain(self, certfile, keyfile=None, password=None):
        self._pair = (certfile, keyfile or certfile)
        self._c = None

    def set_alpn_protocols(self, p):
        self._o["alpn"] = tuple(p)
        self._c = None

    def set_ciphers(self, c):
        self._o["ciphers"] = c

    verify_mode = property(lambda s: s._vm, lambda s, v: setattr(s, "_vm", v))

    def load_verify_locations(self, cafile=None, *a, **k):
        self._ca = cafile

    def server_context(self):
        if self._given is not None:
            return self._given
        if self._c is None:
            o = dict(self._o)
            if self._vm:
                o["client_certificates"] = ClientCertificates(
                    {1: "optional", 2: "required"}[int(self._vm)], ca_certs=self._ca
                )
            self._c = TLSContext(*self._pair, **o)
        return self._c
