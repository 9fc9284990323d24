"""Stub."""

from __future__ import annotations

import ssl


class SSLContext(ssl.SSLContext):
    def server_context(self):
        raise NotImplementedError

    def client_context(self):
        raise NotImplementedError
