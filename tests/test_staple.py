"""OCSP responses that go with the certificate: which are sent, to whom, and what is said of the others."""

from __future__ import annotations

import datetime as dt
import logging
import re
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509 import ocsp
from helpers_web import serving
from OpenSSL import SSL

import engine_shim
from engine_shim import ManualEngine, Status, peer
from engine_shim.server_context import set_staple
from support.chains import Issued, issue, refuse, respond
from support.pair import VERSIONS, Pair
from tlsserver import ConfigurationError, ContextSettings, TLSContext, check

if TYPE_CHECKING:
    from pathlib import Path

    from engine_shim import Engine

NOW = dt.datetime.now(dt.timezone.utc)


@pytest.fixture(scope="module")
def root() -> Issued:
    return issue("root", ca=True)


@pytest.fixture(scope="module")
def leaf(root: Issued) -> Issued:
    return issue("localhost", root)


class Files:
    """Certificate with its issuer, key and response."""

    def __init__(self, folder: Path, leaf: Issued, root: Issued, response: bytes) -> None:
        self.certificate, self.key = leaf.write(folder, root)
        self.response = folder / "response.der"
        self.response.write_bytes(response)

    def context(self, engine: Engine | None = None) -> TLSContext:
        return TLSContext(self.certificate, self.key, engine=engine, ocsp_staple=self.response)

    def warnings(self) -> list[str]:
        settings = ContextSettings(self.certificate, self.key, ocsp_staple=self.response)
        assert not any(problem.is_error for problem in check(settings))
        return [problem.message for problem in check(settings)]


@pytest.fixture
def files(tmp_path: Path, leaf: Issued, root: Issued) -> Files:
    return Files(tmp_path, leaf, root, respond(leaf, root))


def client_context(version: str, ciphers: str | None = None) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(VERSIONS[version])
    context.set_max_proto_version(VERSIONS[version])
    if ciphers:
        context.set_cipher_list(ciphers.encode())
    return context


def received(
    server: SSL.Context, version: str = "1.3", *, ciphers: str | None = None, engine: ManualEngine | None = None
) -> bytes:
    """Do a handshake in a job; return the response that came with it."""
    with Pair(server, client_context(version, ciphers)) as pair:
        peer.ask_for_staple(pair.client)
        status = pair.until_parked()
        if engine is not None:
            assert status is Status.WANT_ASYNC
            engine.perform()
            status = pair.finish()
        assert status is Status.DONE
        return peer.staple(pair.client)


# --- What is sent ---


@pytest.mark.parametrize("version", VERSIONS)
def test_it_goes_with_the_certificate(files: Files, version: str) -> None:
    context = files.context()
    assert received(context.pyopenssl, version) == files.response.read_bytes()
    assert context.ocsp_expires == pytest.approx((NOW + dt.timedelta(days=6)).timestamp(), abs=3600)


@pytest.mark.parametrize("version", VERSIONS)
def test_in_a_handshake_that_is_parked(files: Files, version: str) -> None:
    with ManualEngine() as engine:
        context = files.context(engine)
        assert received(context.pyopenssl, version, engine=engine) == files.response.read_bytes()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_that_does_not_ask(files: Files, version: str) -> None:
    with Pair(files.context().pyopenssl, client_context(version)) as pair:
        assert pair.finish() is Status.DONE
        assert peer.staple(pair.client) == b""


@pytest.mark.parametrize("version", VERSIONS)
def test_a_large_one(tmp_path: Path, leaf: Issued, root: Issued, version: str) -> None:
    """What OpenSSL's clients take in TLS 1.2 is sent; what is larger would end the handshake."""
    sizes = [respond(leaf, root, certificates=count) for count in range(36, 60)]
    largest = max((one for one in sizes if len(one) <= (1 << 14) - 4), key=len)
    assert len(largest) > 15_000
    assert received(Files(tmp_path, leaf, root, largest).context().pyopenssl, version) == largest
    files = Files(tmp_path, leaf, root, sizes[-1])
    assert received(files.context().pyopenssl, version) == b""
    assert "bytes, and OpenSSL's clients take at most 16,380 in TLS 1.2" in files.warnings()[0]


def test_it_goes_with_its_own_certificate_only(tmp_path: Path, leaf: Issued, root: Issued) -> None:
    """One SSL_CTX sends several, by the kind of key that the client takes."""
    other = issue("localhost", root, key=rsa.generate_private_key(65537, 2048))
    both = {"RSA": other, "ECDSA": leaf}
    for kind, issued in both.items():
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        for one in (*(one for one in both.values() if one is not issued), issued):
            certificate, key = one.write(tmp_path)
            context.use_certificate_file(str(certificate))
            engine_shim.use_plain_key(context, key)
        response = respond(issued, root)
        set_staple(context, response, None)
        for sent in both:
            got = received(context, "1.2", ciphers=f"ECDHE-{sent}-AES128-GCM-SHA256")
            assert got == (response if sent == kind else b"")


@pytest.mark.parametrize("version", VERSIONS)
def test_one_that_becomes_too_old_is_not_sent_any_more(files: Files, version: str) -> None:
    context = TLSContext(files.certificate, files.key)
    set_staple(context.pyopenssl, files.response.read_bytes(), NOW.timestamp() - 1)
    assert received(context.pyopenssl, version) == b""
    set_staple(context.pyopenssl, files.response.read_bytes(), NOW.timestamp() + 3600)
    assert received(context.pyopenssl, version) != b""


def test_what_cannot_be_set(files: Files) -> None:
    with pytest.raises(ValueError, match="it is empty"):
        set_staple(files.context().pyopenssl, b"", None)
    with pytest.raises(engine_shim.ShimError, match="OCSP response"):
        set_staple(SSL.Context(SSL.TLS_SERVER_METHOD), b"x", None)


# --- What is not sent, and said once ---

Make = Callable[[Issued, Issued], bytes]

WRONG: dict[str, tuple[Make, str]] = {
    "old": (lambda leaf, root: respond(leaf, root, days=(-9, -1)), "it has expired, "),
    "early": (lambda leaf, root: respond(leaf, root, days=(1, 9)), "it is valid from "),
    "another's": (lambda _, root: respond(issue("x", root), root), "it is about another certificate"),
    "forged": (lambda leaf, root: respond(leaf, root, by=issue("x")), "its signature is not "),
    "revoked": (lambda leaf, root: respond(leaf, root, status=ocsp.OCSPCertStatus.REVOKED), "it says that .* revoked"),
    "refused": (lambda *_: refuse(), "the responder has refused: try_later"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_one_that_clients_would_not_believe(
    tmp_path: Path, leaf: Issued, root: Issued, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    make, words = WRONG[wrong]
    files = Files(tmp_path, leaf, root, make(leaf, root))
    with caplog.at_level(logging.WARNING):
        context = files.context()
        assert received(context.pyopenssl) == b""
        assert received(context.pyopenssl) == b""
    (record,) = caplog.records
    assert record.getMessage() in files.warnings()
    assert record.getMessage().startswith(f"the OCSP response {files.response} is not sent: ")
    assert re.search(words, record.getMessage())


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_what_is_no_response_is_refused(files: Files, content: bytes | None) -> None:
    if content is None:
        files.response.unlink()
    else:
        files.response.write_bytes(content)
    words = "No such file" if content is None else "is no OCSP response in DER: write one with `openssl ocsp -respout`"
    with pytest.raises(ConfigurationError, match=words):
        files.context()
    settings = ContextSettings(files.certificate, files.key, ocsp_staple=files.response)
    (problem,) = check(settings)
    assert problem.is_error
    assert words in problem.message


def test_a_certificate_that_must_have_one(tmp_path: Path, root: Issued) -> None:
    leaf = issue("localhost", root, must_staple=True)
    files = Files(tmp_path, leaf, root, respond(leaf, root))
    assert files.warnings() == []
    (problem,) = check(ContextSettings(files.certificate, files.key))
    assert not problem.is_error
    assert "must come with an OCSP response" in problem.message


def test_a_new_file_is_a_change(files: Files, leaf: Issued, root: Issued) -> None:
    context = files.context()
    assert files.response in context.files
    files.response.write_bytes(respond(leaf, root, days=(-1, 20)))
    assert received(context.replace().pyopenssl) == files.response.read_bytes()
    assert received(context.replace(ocsp_staple=None).pyopenssl) == b""


# --- With openssl's responder and client ---


def openssl(*arguments: object, data: bytes = b"") -> str:
    done = subprocess.run(["openssl", *map(str, arguments)], input=data, capture_output=True, check=True, timeout=30)
    return (done.stdout + done.stderr).decode(errors="replace")


def test_from_openssls_responder_to_openssls_client(tmp_path: Path, leaf: Issued, root: Issued) -> None:
    files = Files(tmp_path, leaf, root, b"")
    authority, authority_key = root.write(tmp_path, name="root")
    serial = f"{leaf.certificate.serial_number:X}"
    serial = serial.zfill(len(serial) + len(serial) % 2)
    (tmp_path / "index").write_text(f"V\t491231235959Z\t\t{serial}\tunknown\t/CN=x\n")
    asked = tmp_path / "asked.der"
    openssl("ocsp", "-issuer", authority, "-cert", files.certificate, "-reqout", asked, "-no_nonce")
    responder = ("-index", tmp_path / "index", "-CA", authority, "-rsigner", authority, "-rkey", authority_key)
    openssl("ocsp", *responder, "-reqin", asked, "-respout", files.response, "-ndays", "2")
    arguments = ("--certfile", str(files.certificate), "--keyfile", str(files.key), "--offload=threads")
    with serving(*arguments, "--ssl-ocsp-staple", str(files.response)) as served:
        to = ("-connect", f"127.0.0.1:{served.port}", "-CAfile", authority, "-verify_return_error")
        for version in ("-tls1_2", "-tls1_3"):
            told = openssl("s_client", *to, version, "-status")
            assert "OCSP Response Status: successful" in told
            assert "Cert Status: good" in told
        assert served.stop()[1].count("WARNING") == 0
