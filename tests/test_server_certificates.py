"""Several certificates in one server, chosen by the name that the client asks for."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from helpers_server import Echo
from helpers_web import serving

from engine_shim import ManualEngine, ThreadEngine
from support.naming import alert, client, connect, digest, served
from support.running import PATIENCE, Running
from tlsserver import Certificate, ConfigurationError, TLSContext, cli

if TYPE_CHECKING:
    from pathlib import Path

    from support.certificates import Certificates, Identity

pytestmark = pytest.mark.usefixtures("nothing_left")

VERSIONS = pytest.mark.parametrize("version", ["1.2", "1.3"])


@pytest.fixture(scope="module")
def main(certificates: Certificates) -> Identity:
    return certificates.for_names("main", "p256", "main.test")


@pytest.fixture(scope="module")
def shop(certificates: Certificates) -> Identity:
    return certificates.for_names("shop", "rsa2048", "shop.test", "*.shop.test")


@pytest.fixture(scope="module")
def exact(certificates: Certificates) -> Identity:
    return certificates.for_names("exact", "p256", "pay.shop.test")


def certificate(files: Identity, **options: Any) -> Certificate:
    return Certificate(files.cert, files.key, **options)


def context_of(main: Identity, *others: Identity, **options: Any) -> TLSContext:
    return TLSContext(main.cert, main.key, certificates=[certificate(one) for one in others], **options)


@VERSIONS
@pytest.mark.parametrize("offload", [True, False])
def test_by_name(main: Identity, shop: Identity, exact: Identity, version: str, offload: bool) -> None:
    with (
        ThreadEngine(1) as engine,
        Running(context_of(main, shop, exact, engine=engine if offload else None), Echo) as site,
    ):
        ours = client(main, version)
        for name, files in (
            ("main.test", main),
            ("shop.test", shop),
            ("WWW.Shop.Test", shop),
            ("pay.shop.test", exact),
            ("a.b.shop.test", main),
            ("unknown.test", main),
            ("127.0.0.1", main),
            (None, main),
        ):
            assert served(site.address, ours, name) == digest(files), name
        assert site.statistics().ops_performed == (8 if offload else 0)


@VERSIONS
def test_strict(main: Identity, shop: Identity, version: str) -> None:
    with Running(context_of(main, shop, unknown_names="strict"), Echo) as site:
        ours = client(main, version)
        assert "unrecognized name" in alert(site.address, ours, "unknown.test").lower().replace("_", " ")
        assert served(site.address, ours, "main.test") == digest(main)
        assert served(site.address, ours, "www.shop.test") == digest(shop)
        assert served(site.address, ours, None) == digest(main)
        assert site.until(lambda numbers: numbers.handshakes_failed).handshakes_failed == 1


def test_strict_says_why(main: Identity, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tlsserver")
    with Running(context_of(main, unknown_names="strict"), Echo) as site:
        alert(site.address, client(main), "unknown.test")
        site.until(lambda numbers: numbers.handshakes_failed)
    assert "no certificate is for the server name 'unknown.test', and unknown names are refused" in caplog.text


@pytest.mark.parametrize(("algorithm", "kind"), [("rsa_pss_rsae_sha256", "RSA"), ("ecdsa_secp256r1_sha256", "EC")])
@VERSIONS
def test_two_kinds_for_one_name(
    certificates: Certificates, main: Identity, algorithm: str, kind: str, version: str
) -> None:
    """By the client's signature algorithms; the main certificate stands beside the other of its name."""
    both = {
        "RSA": certificates.for_names("both-rsa", "rsa2048", "both.test"),
        "EC": certificates.for_names("both-ec", "p256", "both.test"),
    }
    beside_main = certificates.for_names("main-rsa", "rsa2048", "main.test")
    with Running(context_of(main, *both.values(), beside_main), Echo) as site:
        assert fingerprint(site.port, "both.test", algorithm, version) == digest(both[kind])
        expected = {"RSA": beside_main, "EC": main}[kind]
        assert fingerprint(site.port, "main.test", algorithm, version) == digest(expected)


def fingerprint(port: int, name: str, algorithm: str, version: str) -> bytes:
    """Ask with `openssl s_client`, which can offer a single signature algorithm."""
    target = (
        "-connect",
        f"127.0.0.1:{port}",
        "-servername",
        name,
        "-sigalgs",
        algorithm,
        f"-tls{version.replace('.', '_')}",
    )
    shown = subprocess.run(
        ["openssl", "s_client", *target], input=b"", capture_output=True, check=False, timeout=PATIENCE
    ).stdout
    pem = shown[shown.index(b"-----BEGIN") : shown.index(b"-----END CERTIFICATE-----") + 26]
    der = subprocess.run(["openssl", "x509", "-outform", "DER"], input=pem, capture_output=True, check=True).stdout
    return hashlib.sha256(der).digest()


@VERSIONS
def test_every_certificate_may_have_an_engine_of_its_own(
    main: Identity, shop: Identity, exact: Identity, version: str
) -> None:
    """The main key is OpenSSL's; two others are in two engines, whose numbers are the server's."""
    with ThreadEngine(1) as one, ThreadEngine(1) as other:
        context = TLSContext(
            *(main.cert, main.key),
            certificates=[
                Certificate(shop.cert, one.load_key(shop.key)),
                Certificate(exact.cert, other.load_key(exact.key)),
            ],
        )
        assert (context.offloaded, context.engine, set(context.engines)) == (True, None, {one, other})
        with Running(context, Echo) as site:
            for name, files in (("shop.test", shop), ("pay.shop.test", exact), ("main.test", main)):
                assert served(site.address, client(main, version), name) == digest(files)
            assert [engine.statistics().performed for engine in (one, other)] == [1, 1]
            assert site.statistics().ops_performed == 2


@VERSIONS
def test_sessions_do_not_cross_names(main: Identity, shop: Identity, version: str) -> None:
    with Running(context_of(main, shop), Echo) as site:
        ours = client(main, version)
        with connect(site.address, ours, "shop.test") as tls:
            session = tls.session
        for name, reused in (("shop.test", True), ("www.shop.test", False), ("main.test", False), (None, False)):
            with connect(site.address, ours, name, session) as tls:
                assert tls.session_reused is reused, name


@pytest.fixture(scope="module")
def many(certificates: Certificates) -> list[Identity]:
    """More than are read at the start, with one key."""
    key = ec.generate_private_key(ec.SECP256R1())
    return [certificates.for_names(f"many-{number}", "p256", f"h{number}.test", key=key) for number in range(70)]


def test_read_when_they_are_asked_for(main: Identity, many: list[Identity]) -> None:
    context = context_of(main, *many)
    names = context.server_names
    assert names is not None
    assert names.table.loaded == 0
    with Running(context, Echo) as site:
        for number in (3, 69, 3):
            assert served(site.address, client(main), f"h{number}.test") == digest(many[number])
    assert names.table.loaded == 2


def test_a_file_that_is_wrong_costs_who_needs_it(
    main: Identity, many: list[Identity], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Certificate(tmp_path / "gone.pem", tmp_path / "gone.key", names=["broken.test"])
    context = TLSContext(main.cert, main.key, certificates=[*map(certificate, many), broken])
    with Running(context, Echo) as site:
        assert "internal error" in alert(site.address, client(main), "broken.test").lower().replace("_", " ")
        assert served(site.address, client(main), "h1.test") == digest(many[1])
        # Asked anew: the file may have come meanwhile.
        (tmp_path / "gone.pem").write_bytes(many[2].cert.read_bytes())
        (tmp_path / "gone.key").write_bytes(many[2].key.read_bytes())
        assert served(site.address, client(main), "broken.test") == digest(many[2])
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert line.endswith("gone.pem: No such file or directory: give the path of a file that this process may read")


def test_some_are_read_at_the_start(main: Identity, shop: Identity, exact: Identity) -> None:
    names = context_of(main, shop, exact).server_names
    assert names is not None
    assert names.table.loaded == 2


def test_bytes(main: Identity, shop: Identity) -> None:
    given = Certificate(shop.cert.read_bytes(), shop.key.read_bytes())
    context = TLSContext(main.cert, main.key, certificates=[given])
    assert set(context.files) == {main.cert, main.key}
    with Running(context, Echo) as site:
        assert served(site.address, client(main), "a.shop.test") == digest(shop)


def test_files_are_looked_at(main: Identity, shop: Identity) -> None:
    context = context_of(main, shop)
    assert set(context.files) == {main.cert, main.key, shop.cert, shop.key}
    assert context.replace(certificates=()).server_names is None


def test_replace_reads_anew(certificates: Certificates, main: Identity, shop: Identity, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def put(files: Identity) -> None:
        cert.write_bytes(files.cert.read_bytes())
        key.write_bytes(files.key.read_bytes())

    put(shop)
    renewed = certificates.for_names("renewed", "p256", "shop.test")
    with Running(TLSContext(main.cert, main.key, certificates=[Certificate(cert, key)]), Echo) as site:
        assert served(site.address, client(main), "shop.test") == digest(shop)
        put(renewed)
        assert served(site.address, client(main), "shop.test") == digest(shop)
        site.server.reload()
        assert served(site.address, client(main), "shop.test") == digest(renewed)
        assert served(site.address, client(main), "www.shop.test") == digest(main)


def test_mistakes(certificates: Certificates, main: Identity, shop: Identity, tmp_path: Path) -> None:
    nameless = certificates.for_names("nameless", "p256", "f*.test")
    twin = certificates.for_names("twin", "rsa2048", "shop.test")
    other_key = Certificate(shop.cert, main.key)
    not_pem = tmp_path / "not.pem"
    not_pem.write_text("nothing")
    for given, message in (
        ([Certificate("no.pem", "no.key")], r"certificate no.pem: No such file"),
        ([Certificate(not_pem, "no.key")], r"certificate .*not.pem cannot be read: it has no PEM certificate"),
        ([Certificate(shop.cert, "no.key")], r"private key no.key: No such file"),
        ([other_key], r"shop.pem cannot be used: the private key does not belong to the certificate"),
        ([certificate(nameless)], r"nameless.pem is for no host name .*: give names"),
        ([certificate(shop, names=["a b"])], r"server name 'a b' is no host name: give one in ASCII"),
        ([certificate(shop, names=["bücher.test"])], r"server name 'bücher.test' is no host name"),
        (
            [certificate(shop), certificate(twin)],
            r"shop.test has two certificates with RSA keys, .*shop.pem and .*twin",
        ),
        ([shop], r"certificates must be a sequence of tlsserver.Certificate"),
        (certificate(shop), r"certificates must be a sequence of tlsserver.Certificate"),
        (
            [Certificate(shop.cert, shop.encrypted_key(b"right"))],
            r"shop.pem cannot be used: .*password is missing or wrong",
        ),
    ):
        with pytest.raises(ConfigurationError, match=message) as caught:
            TLSContext(main.cert, main.key, certificates=given)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="choose from default, strict"):
        context_of(main, unknown_names="maybe")


def test_whoever_names_it_may_say_for_what_it_is(main: Identity, shop: Identity) -> None:
    given = certificate(shop, names=["anything.example"])
    with Running(TLSContext(main.cert, main.key, certificates=[given]), Echo) as site:
        assert served(site.address, client(main), "anything.example") == digest(shop)
        assert served(site.address, client(main), "shop.test") == digest(main)


def test_a_key_too_weak_is_refused_at_the_start(certificates: Certificates, main: Identity) -> None:
    weak = certificates.for_names("weak", "rsa", "weak.test", key=weak_key())
    with pytest.raises(ConfigurationError, match=r"weak.pem cannot be used: .*too small"):
        context_of(main, weak)


def weak_key() -> Any:
    return rsa.generate_private_key(65537, 1024)  # noqa: S505 - to be refused


def test_a_parked_handshake_with_a_name(main: Identity, shop: Identity, manual: ManualEngine) -> None:
    """Its key is in an engine that is asked to wait: the handshake ends with the certificate it began with."""
    context = TLSContext(main.cert, main.key, certificates=[Certificate(shop.cert, manual.load_key(shop.key))])
    with Running(context, Echo) as site:
        found: list[bytes] = []
        asking = threading.Thread(target=lambda: found.append(served(site.address, client(main), "shop.test")))
        asking.start()
        site.until(lambda numbers: numbers.parked_now)
        site.server.swap_context(context_of(main))
        manual.perform()
        asking.join(PATIENCE)
        assert found == [digest(shop)]


def serve_arguments(main: Identity, *more: str) -> list[str]:
    return ["serve", "--port", "0", "--ssl-certfile", str(main.cert), "--ssl-keyfile", str(main.key), *more]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("shop.test", "--ssl-sni 'shop.test' cannot be read: give NAME=CERT,KEY"),
        ("=cert,key", "--ssl-sni '=cert,key' cannot be read: give NAME=CERT,KEY"),
        ("shop.test=", "--ssl-sni 'shop.test=' cannot be read: give NAME=CERT,KEY"),
        ("shop.test=no.pem,no.key", "no.pem: No such file or directory"),
        ("a b={shop.cert},{shop.key}", "server name 'a b' is no host name"),
        ("shop.test={shop.cert},{main.key}", "the private key does not belong to the certificate"),
    ],
)
def test_bad_options(
    main: Identity, shop: Identity, capsys: pytest.CaptureFixture[str], given: str, message: str
) -> None:
    assert cli.run(serve_arguments(main, "--offload=off", "--ssl-sni", given.format(main=main, shop=shop))) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert all(line.startswith("tlsserver: error: ") for line in told.err.splitlines())
    assert message in told.err


def test_options(main: Identity, shop: Identity) -> None:
    more = ("--ssl-sni", f"*.Shop.test={shop.cert},{shop.key}", "--ssl-unknown-names=strict", "--offload=threads")
    with serving(*serve_arguments(main, *more)[3:]) as site:
        address = ("127.0.0.1", site.port)
        assert fingerprint_of(address, main, "x.shop.test") == digest(shop)
        assert fingerprint_of(address, main, "main.test") == digest(main)
        assert "unrecognized" in alert(address, client(main), "shop.test").lower()


def fingerprint_of(address: tuple[str, int], main: Identity, name: str) -> bytes:
    sock = socket.create_connection(address, PATIENCE)
    with client(main).wrap_socket(sock, server_hostname=name) as tls:
        return hashlib.sha256(tls.getpeercert(binary_form=True) or b"").digest()


def test_a_reload_parses_what_has_changed_only(
    certificates: Certificates, main: Identity, many: list[Identity], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [(tmp_path / f"{number}.pem", tmp_path / f"{number}.key") for number in range(len(many))]
    for (cert, key), identity in zip(files, many, strict=True):
        cert.write_bytes(identity.cert.read_bytes())
        key.write_bytes(identity.key.read_bytes())
    parsed: list[bytes] = []
    parse = x509.load_pem_x509_certificate

    def counted(pem: bytes) -> x509.Certificate:
        if pem.strip() != main.cert.read_bytes().strip():
            parsed.append(pem)
        return parse(pem)

    monkeypatch.setattr("tlsserver.policy.certificate.x509.load_pem_x509_certificate", counted)
    context = TLSContext(main.cert, main.key, certificates=[Certificate(cert, key) for cert, key in files])
    assert len(parsed) == len(many)
    renewed = certificates.for_names("renewed-7", "p256", "renewed.test")
    files[7][0].write_bytes(renewed.cert.read_bytes())
    parsed.clear()
    context.replace()
    assert parsed == [renewed.cert.read_bytes()]


def test_an_identity_is_loaded_anew_when_its_files_change(main: Identity, shop: Identity, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    given = Certificate(cert, key)
    identities = []
    for files in (main, shop):
        cert.write_bytes(files.cert.read_bytes())
        key.write_bytes(files.key.read_bytes())
        identities += [given.identity(None), given.identity(None)]
    assert identities[0] is identities[1]
    assert identities[1] is not identities[2]
    assert identities[2] is identities[3]
