"""What `tlsserver.check` finds: everything that is wrong, at once, and nothing where nothing is."""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization

import tlsserver
from engine_shim import ThreadEngine
from support.chains import issue
from tlsserver import Certificate, ContextSettings, Server, TLSContext, check
from tlsserver.policy.check import soon

if TYPE_CHECKING:
    from pathlib import Path

    from support.certificates import Certificates
    from support.chains import Issued

NOW = dt.datetime.now(dt.timezone.utc)


def errors(settings: ContextSettings, **options: str) -> list[str]:
    return [problem.message for problem in check(settings, **options) if problem.is_error]  # type: ignore[arg-type]


def warnings(settings: ContextSettings, **options: str) -> list[str]:
    return [problem.message for problem in check(settings, **options) if not problem.is_error]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def root() -> Issued:
    return issue("root", ca=True)


def test_nothing_is_wrong(root: Issued, tmp_path: Path) -> None:
    between = issue("between", root, ca=True)
    settings = ContextSettings(*issue("localhost", between).write(tmp_path, between))
    assert check(settings, host="localhost") == []
    assert tlsserver.Problem(True, "x") == tlsserver.Problem(True, "x")


def test_a_self_signed_certificate_is_complete(tmp_path: Path) -> None:
    assert check(ContextSettings(*issue("localhost").write(tmp_path))) == []


def test_all_problems_at_once(tmp_path: Path) -> None:
    certificate, _ = issue("localhost", days=(-60, -1)).write(tmp_path)
    _, other_key = issue("other").write(tmp_path, name="other")
    settings = ContextSettings(certificate, other_key, ciphers="nonsense", min_version="1.7", alpn=("x" * 300,))
    found = "\n".join(errors(settings))
    assert found.count("\n") == 4
    for words in (
        "'1.7' is not known",
        "suites not known to this OpenSSL: nonsense",
        "1 to 255",
        "does not belong",
        "has expired, ",
    ):
        assert words in found


@pytest.mark.parametrize(
    ("days", "words"), [((-60, -1), r"has expired, .* UTC: renew it"), ((1, 9), r"is not yet valid, .* UTC: look at")]
)
def test_times(tmp_path: Path, days: tuple[int, int], words: str) -> None:
    certificate, key = issue("localhost", days=days).write(tmp_path)
    (message,) = errors(ContextSettings(certificate, key))
    assert message.startswith(f"certificate {certificate} {words[:10]}")
    with pytest.raises(tlsserver.ConfigurationError, match=words):
        tlsserver.policy.check.refuse(check(ContextSettings(certificate, key)))


def test_a_certificate_of_the_chain_that_has_expired_is_a_warning(root: Issued, tmp_path: Path) -> None:
    between = issue("between", root, ca=True, days=(-9, -1))
    settings = ContextSettings(*issue("localhost", between).write(tmp_path, between))
    assert errors(settings) == []
    (message,) = warnings(settings)
    assert message.startswith("certificate 'between' in the chain of ")
    assert " has expired, " in message


@pytest.mark.parametrize(
    ("life", "left", "is_soon"),
    [(90, 5.9, True), (90, 6.1, False), (6, 0.3, True), (6, 0.5, False), (3650, 13, True), (3650, 15, False)],
)
def test_what_expires_soon(tmp_path: Path, life: float, left: float, is_soon: bool) -> None:
    issued = issue("localhost", days=(left - life, left))
    found = warnings(ContextSettings(*issued.write(tmp_path)))
    assert [" expires soon, " in message for message in found] == [True] * is_soon
    assert soon(issued.certificate) <= dt.timedelta(days=14)


@pytest.mark.parametrize("chain", [(), ("other",)])
def test_a_chain_that_looks_incomplete(root: Issued, tmp_path: Path, chain: tuple[str, ...]) -> None:
    leaf = issue("localhost", root)
    (message,) = warnings(ContextSettings(*leaf.write(tmp_path, *(issue(name, ca=True) for name in chain))))
    assert "looks incomplete: its issuer 'root' is not in the file; append " in message


def test_names(tmp_path: Path) -> None:
    settings = ContextSettings(*issue("x", names=["*.a.example"]).write(tmp_path))
    assert warnings(settings, host="www.a.example") == []
    (message,) = warnings(settings, host="www.b.example")
    assert "is not for www.b.example, but for *.a.example: " in message


@pytest.mark.parametrize(("mode", "is_told"), [(0o600, False), (0o640, False), (0o604, True), (0o602, True)])
def test_keys_that_everybody_may_read(tmp_path: Path, mode: int, is_told: bool) -> None:
    certificate, key = issue("localhost").write(tmp_path)
    key.chmod(mode)
    assert [f"{key} can be read" in message for message in warnings(ContextSettings(certificate, key))] == [
        True
    ] * is_told


def test_files_that_are_not_there(tmp_path: Path) -> None:
    certificate, key = issue("localhost").write(tmp_path)
    both = errors(ContextSettings(tmp_path / "no-certificate", tmp_path / "no-key"))
    assert ["no-certificate: No such file" in both[0], "no-key: No such file" in both[1], len(both)] == [True, True, 2]
    assert errors(ContextSettings(certificate, str(tmp_path / "no-key")))[0].endswith("may read")
    assert errors(ContextSettings(key, key))[0].startswith(f"certificate {key} cannot be used")
    os.truncate(certificate, 0)
    assert "is not a PEM file" in errors(ContextSettings(certificate, key))[0]


def test_an_encrypted_key(tmp_path: Path) -> None:
    issued = issue("localhost")
    certificate, key = issued.write(tmp_path)
    encryption = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    key.write_bytes(issued.key.private_bytes(serialization.Encoding.PEM, form, encryption))
    assert "password" in errors(ContextSettings(certificate, key, password="wrong"))[0]  # noqa: S106 - that it is
    assert check(ContextSettings(certificate, key, password="secret")) == []  # noqa: S106 - of a key made here


def test_certificates_for_names(tmp_path: Path) -> None:
    main = issue("localhost").write(tmp_path)
    for folder in ("good", "old"):
        (tmp_path / folder).mkdir()
    good, good_key = issue("good", names=["good.test"]).write(tmp_path / "good")
    old, old_key = issue("old", names=["old.test"], days=(-9, -1)).write(tmp_path / "old")
    fine = Certificate(good, good_key)
    assert check(ContextSettings(*main, certificates=[fine])) == []
    for wrong, words in (
        (Certificate(tmp_path / "no.pem", good_key, names=["a.test"]), "no.pem: No such file"),
        (Certificate(good, old_key, names=["b.test"]), "does not belong"),
        (Certificate(good, good_key, names=["no host"]), "'no host' is no host name"),
        ("good.pem", "certificates must be a sequence"),
    ):
        (message,) = errors(ContextSettings(*main, certificates=[fine, wrong]))  # type: ignore[list-item]
        assert words in message
    missing = Certificate(tmp_path / "no.pem", good_key, names=["a.test"])
    both = errors(ContextSettings(*main, certificates=[missing], ciphers="nonsense"))
    assert [len(both), "nonsense" in both[0], "no.pem: No such file" in both[1]] == [2, True, True]
    assert "choose from default, strict" in errors(ContextSettings(*main, unknown_names="lax"))[0]
    settings = ContextSettings(*main, certificates=[Certificate(old, old_key)])
    assert errors(settings) == [], "the others can be served"
    (message,) = warnings(settings)
    assert message.startswith(f"certificate {old} has expired, ")
    assert TLSContext(*main, certificates=settings.certificates).expires == pytest.approx(
        (NOW - dt.timedelta(days=1)).timestamp(), abs=3600
    )


def test_keys_in_engines(certificates: Certificates, tmp_path: Path) -> None:
    certificate, key = issue("localhost").write(tmp_path)
    with ThreadEngine(1) as engine:
        assert check(ContextSettings(certificate, key, engine=engine)) == []
        assert check(ContextSettings(certificate, engine.load_key(key))) == []
        wrong = ContextSettings(certificate, certificates["rsa2048"].key, engine=engine)
        assert "does not belong" in errors(wrong)[0]
        assert [one for one in check(wrong, with_key=False) if one.is_error] == []


def test_the_clock_may_be_another(tmp_path: Path) -> None:
    settings = ContextSettings(*issue("localhost").write(tmp_path))
    assert [problem.is_error for problem in check(settings, now=NOW + dt.timedelta(days=61))] == [True]


# --- When a certificate expires ---


def test_statistics_tell_when_the_first_certificate_expires(root: Issued, tmp_path: Path) -> None:
    between = issue("between", root, ca=True, days=(-9, 20))
    leaf, next_one = issue("localhost", between), issue("localhost", days=(-1, 10))
    context = TLSContext(*leaf.write(tmp_path, between))
    assert context.expires == pytest.approx((NOW + dt.timedelta(days=20)).timestamp(), abs=3600)
    server = Server(context, lambda: None, port=0)  # type: ignore[arg-type, return-value]
    assert server.statistics().certificate_expires == context.expires
    next_one.write(tmp_path)
    server.reload()
    assert server.statistics().as_dict()["certificate_expires"] == pytest.approx(
        (NOW + dt.timedelta(days=10)).timestamp(), abs=3600
    )
    taken_over = TLSContext.from_pyopenssl(context.pyopenssl)
    assert taken_over.expires is None


def test_certificates_for_names_are_looked_at_as_well(tmp_path: Path) -> None:
    main = issue("localhost").write(tmp_path)
    expired = issue("old.test", days=(-60, -1), names=["old.test"]).write(tmp_path, name="old")
    good = issue("new.test", names=["new.test"]).write(tmp_path, name="new")
    settings = ContextSettings(
        *main,
        certificates=[Certificate(*expired), Certificate(*good), Certificate(good[0], "gone"), Certificate("no", "no")],
    )
    found = "\n".join(errors(settings))
    assert found.count("\n") == 1
    for words in ("private key gone: No such file", "certificate no: No such file"):
        assert words in found
    assert any("old.pem has expired" in problem.message for problem in check(settings) if not problem.is_error)


def test_the_first_to_expire_may_be_one_for_a_name(tmp_path: Path) -> None:
    main = issue("localhost", days=(-1, 60)).write(tmp_path)
    named = issue("new.test", days=(-1, 20), names=["new.test"]).write(tmp_path, name="new")
    context = TLSContext(*main, certificates=[Certificate(*named)])
    assert context.expires == pytest.approx((NOW + dt.timedelta(days=20)).timestamp(), abs=3600)
