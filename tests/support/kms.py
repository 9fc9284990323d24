"""A key management service: HTTP and JSON, the shape of AWS KMS' call Sign, one key, on loopback."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

from support.asking import private_key
from support.running import PATIENCE

if TYPE_CHECKING:
    from typing_extensions import Self

    from support.certificates import Identity

KEY_ID = "alias/web"

_TYPE = "application/x-amz-json-1.1"
_DIGESTS = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


class Kms:
    """The service on a thread of its own; a context manager.

    Args:
        identity: Whose key it has.
        failures: The next requests, as many, get an internal error; a test may set it again.

    Attributes:
        algorithms: Of each request so far.
    """

    def __init__(self, identity: Identity) -> None:
        self._key = private_key(identity)
        self.failures = 0
        self.algorithms: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, target: str, fields: dict[str, str]) -> tuple[int, dict[str, str]]:
        """Answer a call: the status and the fields of the response."""
        if target != "TrentService.Sign" or fields["MessageType"] != "DIGEST":
            return 400, {"__type": "UnknownOperationException"}
        if fields["KeyId"] != KEY_ID:
            return 400, {"__type": "NotFoundException", "message": f"no key {fields['KeyId']}"}
        if self.failures:
            self.failures -= 1
            return 500, {"__type": "KMSInternalException", "message": "try again"}
        algorithm = fields["SigningAlgorithm"]
        self.algorithms.append(algorithm)
        signature = self._sign(algorithm, base64.b64decode(fields["Message"]))
        return 200, {**fields, "Signature": base64.b64encode(signature).decode()}

    def _sign(self, algorithm: str, digest: bytes) -> bytes:
        scheme, _, bits = algorithm.rpartition("_SHA_")
        hashed = utils.Prehashed(_DIGESTS[bits])
        if scheme == "ECDSA":
            return bytes(self._key.sign(digest, ec.ECDSA(hashed)))
        pss = padding.PSS(padding.MGF1(_DIGESTS[bits]), len(digest))
        how: Any = {"RSASSA_PSS": pss, "RSASSA_PKCS1_V1_5": padding.PKCS1v15()}
        return bytes(self._key.sign(digest, how[scheme], hashed))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(kms: Kms) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections stay
        timeout = PATIENCE

        def do_POST(self) -> None:
            fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = kms.answer(self.headers["X-Amz-Target"], fields)
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", _TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
