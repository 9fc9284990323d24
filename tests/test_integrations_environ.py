"""What WSGI applications read about TLS and the client's certificate."""

from __future__ import annotations

import dataclasses
import datetime as dt
import ssl
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from support.client_authority import DAY, now
from tlsserver.client_certificate import ClientCertificate
from tlsserver.integrations.environ import tls_environ
from tlsserver.wire import TLSInfo

if TYPE_CHECKING:
    from support.client_scene import House

INFO = TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", "X25519", "http/1.1", reused=False, server_name="shop.test")


def certificate(*names: tuple[x509.ObjectIdentifier, str], sans: tuple[x509.GeneralName, ...] = ()) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in names])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 0xABC).not_valid_before(now() - DAY)
    builder = builder.not_valid_after(now() + 10 * DAY + dt.timedelta(hours=1))
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    return builder.sign(key, hashes.SHA256())


def told(*names: tuple[x509.ObjectIdentifier, str], sans: tuple[x509.GeneralName, ...] = ()) -> dict[str, str]:
    der = certificate(*names, sans=sans).public_bytes(Encoding.DER)
    return tls_environ(INFO, ClientCertificate((der,)))


def test_without_a_certificate() -> None:
    assert tls_environ(INFO, None) == {
        "HTTPS": "on",
        "SSL_PROTOCOL": "TLSv1.3",
        "SSL_CIPHER": "TLS_AES_256_GCM_SHA384",
        "SSL_CIPHER_EXPORT": "false",
        "SSL_CIPHER_USEKEYSIZE": "256",
        "SSL_CIPHER_ALGKEYSIZE": "256",
        "SSL_COMPRESS_METHOD": "NULL",
        "SSL_SECURE_RENEG": "true",
        "SSL_SESSION_RESUMED": "Initial",
        "SSL_TLS_SNI": "shop.test",
        "SSL_CLIENT_VERIFY": "NONE",
    }


@pytest.mark.parametrize(
    ("cipher", "bits"),
    [
        ("TLS_AES_128_GCM_SHA256", "128"),
        ("TLS_CHACHA20_POLY1305_SHA256", "256"),
        ("ECDHE-RSA-AES256-GCM-SHA384", "256"),
        ("ECDHE-ECDSA-CAMELLIA128-SHA256", "128"),
        ("ECDHE-ARIA256-GCM-SHA384", "256"),
        ("SOMETHING-NEW", None),
    ],
)
def test_ciphers(cipher: str, bits: str | None) -> None:
    found = tls_environ(dataclasses.replace(INFO, cipher=cipher, server_name=None, reused=True), None)
    assert (found.get("SSL_CIPHER_USEKEYSIZE"), found["SSL_SESSION_RESUMED"]) == (bits, "Resumed")
    assert "SSL_TLS_SNI" not in found


def test_a_certificate() -> None:
    found = told(
        (NameOID.COUNTRY_NAME, "DE"),
        (NameOID.ORGANIZATION_NAME, "Example"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "first"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "second"),
        (NameOID.COMMON_NAME, "alice"),
        (NameOID.EMAIL_ADDRESS, "alice@example.org"),
        sans=(x509.DNSName("a.test"), x509.DNSName("b.test"), x509.RFC822Name("alice@example.org")),
    )
    expected = {
        "VERIFY": "SUCCESS",
        "M_VERSION": "3",
        "M_SERIAL": "0ABC",
        "S_DN_C": "DE",
        "S_DN_O": "Example",
        "S_DN_OU": "first",
        "S_DN_OU_1": "second",
        "S_DN_CN": "alice",
        "S_DN_Email": "alice@example.org",
        "SAN_DNS_0": "a.test",
        "SAN_DNS_1": "b.test",
        "SAN_Email_0": "alice@example.org",
        "A_SIG": "ecdsa-with-SHA256",
        "A_KEY": "id-ecPublicKey",
        "V_REMAIN": "10",
    }
    assert {name: found[f"SSL_CLIENT_{name}"] for name in expected} == expected
    assert found["SSL_CLIENT_S_DN"] == "emailAddress=alice@example.org,CN=alice,OU=second,OU=first,O=Example,C=DE"
    assert found["SSL_CLIENT_I_DN"] == found["SSL_CLIENT_S_DN"]
    assert ssl.cert_time_to_seconds(found["SSL_CLIENT_V_START"]) == pytest.approx((now() - DAY).timestamp(), abs=60)
    assert ssl.cert_time_to_seconds(found["SSL_CLIENT_V_END"]) > (now() + 10 * DAY).timestamp()


def test_text_is_bytes_behind_latin_1_and_no_line_ends_get_through() -> None:
    found = told((NameOID.COMMON_NAME, "Jörg ☃\r\nX-Admin: yes"))
    assert all(ord(sign) < 256 for value in found.values() for sign in value)
    assert found["SSL_CLIENT_S_DN_CN"].encode("latin-1").decode() == "Jörg ☃\\0D\\0AX-Admin: yes"
    assert "\n" not in found["SSL_CLIENT_S_DN"]
    assert "\r" not in found["SSL_CLIENT_S_DN"]


def test_the_chain(house: House) -> None:
    chain = (house.below.der, house.middle.x509.public_bytes(Encoding.DER), house.root.x509.public_bytes(Encoding.DER))
    found = tls_environ(INFO, ClientCertificate(chain))
    names = ("SSL_CLIENT_CERT", "SSL_CLIENT_CERT_CHAIN_0", "SSL_CLIENT_CERT_CHAIN_1")
    assert tuple(ssl.PEM_cert_to_DER_cert(found[name]) for name in names) == chain
    assert found["SSL_CLIENT_CERT"].splitlines() == ssl.DER_cert_to_PEM_cert(chain[0]).splitlines()


def test_what_cryptography_does_not_take(house: House) -> None:
    """OpenSSL has verified it; the application has the bytes."""
    found = tls_environ(INFO, ClientCertificate((house.good.der[:-1] + b"",)))
    assert found["SSL_CLIENT_VERIFY"] == "SUCCESS"
    assert "SSL_CLIENT_S_DN" not in found


def test_a_key_that_cryptography_does_not_know(identity_der: bytes) -> None:
    """The name must be told all the same, and the request be served."""
    prime256v1, prime239v2 = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d030105")
    assert identity_der.count(prime256v1) == 1
    found = tls_environ(INFO, ClientCertificate((identity_der.replace(prime256v1, prime239v2),)))
    assert (found["SSL_CLIENT_S_DN"], found["SSL_CLIENT_A_KEY"]) == ("CN=alice", "UNKNOWN")
    assert found["SSL_CLIENT_SAN_DNS_0"] == "a.test"


def test_an_extension_that_cryptography_does_not_take(identity_der: bytes) -> None:
    """A name of a kind that only OpenSSL reads: the rest is told."""
    name = b"\x82\x06a.test"
    assert identity_der.count(name) == 1
    found = tls_environ(INFO, ClientCertificate((identity_der.replace(name, b"\x85" + name[1:]),)))
    assert (found["SSL_CLIENT_S_DN"], found["SSL_CLIENT_A_KEY"]) == ("CN=alice", "id-ecPublicKey")
    assert "SSL_CLIENT_SAN_DNS_0" not in found


@pytest.fixture
def identity_der() -> bytes:
    """A certificate of which tests change a few bytes."""
    made = certificate((NameOID.COMMON_NAME, "alice"), sans=(x509.DNSName("a.test"),))
    return made.public_bytes(Encoding.DER)
