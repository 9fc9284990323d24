"""Protocols that run over a TLS connection: the interface (`base`), `echo` and `http1`."""
