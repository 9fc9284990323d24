"""Handshakes that ask a signer, and a signer that has another library's keys."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from engine_shim import SignerEngine, SignRequest, Status
from support.pair import Pair, client_context, server_context

if TYPE_CHECKING:
    from support.certificates import Identity


def private_key(identity: Identity) -> Any:
    return load_pem_private_key(identity.key.read_bytes(), None)


def sign(request: SignRequest, key: Any) -> bytes:
    """Sign with another library, out of what the request says and nothing else; ECDSA and RSA from the digest."""
    if request.digest_name is None:
        return bytes(key.sign(request.message))
    assert request.digest is not None
    digest: Any = getattr(hashes, request.digest_name.replace("-", "_"))()
    hashed = utils.Prehashed(digest)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(request.digest, ec.ECDSA(hashed))
    if request.padding == "pkcs1":
        return bytes(key.sign(request.digest, padding.PKCS1v15(), hashed))
    assert request.salt_length is not None
    return bytes(key.sign(request.digest, padding.PSS(padding.MGF1(digest), request.salt_length), hashed))


def make_pair(engine: SignerEngine, identity: Identity, version: str | None = None, ciphers: str | None = None) -> Pair:
    key = engine.load_key(identity.cert)
    return Pair(server_context(identity, key, ciphers), client_context(identity, version, ciphers))


def taken(engine: SignerEngine) -> SignRequest:
    request = engine.take()
    assert request is not None
    return request


def is_readable(engine: SignerEngine) -> bool:
    poll = select.poll()
    poll.register(engine.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def asked(engine: SignerEngine, pair: Pair) -> SignRequest:
    assert pair.until_parked() is Status.WANT_ASYNC
    return taken(engine)


def ended(pair: Pair) -> Status:
    pair.wait()
    return pair.until_parked()


def said(pair: Pair) -> str:
    """Tell why the server's handshake has failed."""
    return "; ".join(error.text for error in pair.server.errors())


def raw_decryption(request: SignRequest, key: rsa.RSAPrivateKey) -> bytes:
    numbers = key.private_numbers()
    plain = pow(int.from_bytes(request.message, "big"), numbers.d, numbers.public_numbers.n)
    return plain.to_bytes(key.key_size // 8, "big")
