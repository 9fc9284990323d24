"""SoftHSM2 in ten lines: a TLS server whose private key is on a PKCS #11 token. `docs/hsm.md` makes the token.

    SOFTHSM2_CONF=softhsm2.conf python examples/softhsm.py server.crt 'pkcs11:token=web?module-name=softhsm2' file:pin

Try it: `openssl s_client -connect 127.0.0.1:8443 -quiet`, type a line, see it again.
"""

from __future__ import annotations

import sys

import tlsserver
from tlsserver.protocols.echo import EchoProtocol
from tlsserver.signers.pkcs11 import Pkcs11Signer


def main(certificate: str, uri: str, pin: str, port: str = "8443") -> None:
    with Pkcs11Signer(uri, pin=pin) as signer:
        key = signer.load_key(certificate)
        server = tlsserver.Server(tlsserver.TLSContext(certificate, key), EchoProtocol, port=int(port))
        host, listening = server.listen()
        print(f"listening on {host}:{listening}", flush=True)
        server.run()
        (numbers,) = server.statistics().signers
        print(numbers.performed, "signatures by", numbers.name)


if __name__ == "__main__":
    main(*sys.argv[1:])
