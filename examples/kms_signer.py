"""Serve HTTPS with a key that is in a KMS: `python examples/kms_signer.py CERT KMS-URL KEY-ID [PORT]`.

The KMS speaks HTTP and JSON, as AWS KMS does (its call Sign). A real one also wants its requests signed by you: put
that into `sign`, or call its library there. Whatever is raised is tried once more, then that handshake fails.
"""

from __future__ import annotations

import base64
import http.client
import json
import sys
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import tlsserver
from tlsserver.protocols.http1 import protocol_factory
from tlsserver.protocols.messages import Response
from tlsserver.signers.callable import CallableSigner, RequestRefusedError

if TYPE_CHECKING:
    from engine_shim import SignRequest

HEADERS = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "TrentService.Sign"}
HELLO = Response(200, (("Content-Type", "text/plain"),), b"hello; the key is not here\n")
FAMILIES = {"rsa_pss_rsae": "RSASSA_PSS", "rsa_pkcs1": "RSASSA_PKCS1_V1_5", "ecdsa": "ECDSA"}


class Kms(threading.local):
    """Signs there; each thread has a connection of its own, and keeps it."""

    def __init__(self, url: str, key_id: str) -> None:
        parts = urlsplit(url)
        make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = make(parts.netloc, timeout=2)
        self._key_id = key_id

    def sign(self, request: SignRequest) -> bytes:
        family = next((name for start, name in FAMILIES.items() if request.scheme.startswith(start)), None)
        if family is None or request.digest is None or request.digest_name is None:
            raise RequestRefusedError(f"the KMS has no {request.scheme}")
        fields = {"KeyId": self._key_id, "MessageType": "DIGEST", "Message": base64.b64encode(request.digest).decode()}
        fields["SigningAlgorithm"] = f"{family}_SHA_{request.digest_name[3:]}"
        return base64.b64decode(self._post(fields)["Signature"])

    def _post(self, fields: dict[str, str]) -> dict[str, str]:
        try:
            self._connection.request("POST", "/", json.dumps(fields), HEADERS)
            response = self._connection.getresponse()
            answer: dict[str, str] = json.load(response)
        except (http.client.HTTPException, OSError, ValueError):
            self._connection.close()  # the next request connects anew
            raise
        if response.status != http.client.OK:
            raise OSError(f"the KMS says {response.status}: {answer.get('message', answer)}")
        return answer


def main(certificate: str, url: str, key_id: str, port: str = "8443") -> None:
    with CallableSigner(Kms(url, key_id).sign, name="kms", threads=16) as signer:
        context = tlsserver.TLSContext(certificate, signer.load_key(certificate), alpn=["http/1.1"])
        server = tlsserver.Server(context, protocol_factory(lambda _: HELLO), port=int(port))
        print("listening on {}:{}".format(*server.listen()), flush=True)
        server.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
