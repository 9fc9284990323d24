"""`tlsserver serve` with keys that are elsewhere: each kind of signer as a user starts it, and the mistakes."""

from __future__ import annotations

import os
import signal
import textwrap
from typing import TYPE_CHECKING

import pytest
from helpers_web import serving

from support.key_server import KeyServer
from support.softhsm import MODULE, PIN
from tlsserver import cli

if TYPE_CHECKING:
    from pathlib import Path

    from support.certificates import Certificates, Identity


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("TLSSERVER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "tlsserver"


@pytest.fixture
def own(certificates: Certificates) -> Identity:
    return certificates["p256"]


# Serving.


def test_isolated(own: Identity) -> None:
    with serving("--offload=isolated", f"--ssl-certfile={own.cert}", f"--ssl-keyfile={own.key}") as site:
        assert "  engine       isolated\n" in site.said
        assert site.connection(own.ca)["parks"] >= 1
        code, errors = site.stop()
    assert code == 0
    assert "ERROR" not in errors


def test_isolated_with_the_certificate_that_it_makes(state: Path) -> None:
    with serving("--offload=isolated") as site:
        assert "made just now" in site.said
        assert site.connection(state / "localhost.crt")["parks"] >= 1
    with serving("--offload=isolated") as site:
        assert "kept in" in site.said


def test_statistics_tell_of_signers(own: Identity) -> None:
    with serving("--offload=isolated", f"--ssl-certfile={own.cert}", f"--ssl-keyfile={own.key}") as site:
        site.get(own.ca)
        assert b'"breaker"' in site.get(own.ca, "/statistics.json")


def test_isolated_follows_the_files(certificates: Certificates, tmp_path: Path) -> None:
    certificate, key = tmp_path / "site.crt", tmp_path / "site.key"

    def install(identity: Identity) -> None:
        key.write_bytes(identity.key.read_bytes())
        key.chmod(0o600)
        certificate.write_bytes(identity.cert.read_bytes())

    install(certificates["p256"])
    with serving("--offload=isolated", f"--ssl-certfile={certificate}", f"--ssl-keyfile={key}") as site:
        site.get(certificates["p256"].ca)
        install(certificates["rsa2048"])
        site.process.send_signal(signal.SIGHUP)
        assert site.process.stderr is not None
        assert any("certificates and keys are reloaded" in line for line in site.process.stderr)
        site.get(certificates["rsa2048"].ca)
        code, _ = site.stop()
    assert code == 0


def test_isolated_follows_the_keys_of_names(certificates: Certificates, own: Identity, tmp_path: Path) -> None:
    """The certificate first, the key a while later: each by itself is a change."""
    certificate, key = tmp_path / "site.crt", tmp_path / "site.key"

    def install(path: Path, data: Path) -> None:
        path.write_bytes(data.read_bytes())
        path.chmod(0o644 if path == certificate else 0o600)

    def wait_for(message: str) -> None:
        assert site.process.stderr is not None
        assert any(message in line for line in site.process.stderr)

    before, after = certificates["rsa2048"], certificates["p384"]
    install(certificate, before.cert)
    install(key, before.key)
    options = ["--offload=isolated", f"--ssl-certfile={own.cert}", f"--ssl-keyfile={own.key}"]
    with serving(*options, f"--ssl-sni=localhost={certificate},{key}", "--reload-interval=0.05") as site:
        site.get(before.ca)
        install(certificate, after.cert)
        wait_for("reload failed, the last good certificates stay")
        site.get(before.ca)
        install(key, after.key)
        wait_for("certificates and keys are reloaded")
        site.get(after.ca)


def test_certificate_that_everybody_may_read_is_no_key(own: Identity, capfd: pytest.CaptureFixture[str]) -> None:
    own.cert.chmod(0o644)
    options = ["--offload=isolated", f"--ssl-certfile={own.cert}", f"--ssl-keyfile={own.key}"]
    assert cli.run(["serve", "--check-config", *options, f"--ssl-sni=localhost={own.cert},{own.key}"]) == 0
    assert f"private key {own.cert}" not in capfd.readouterr().err


def test_python(own: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mykeys.py").write_text(
        textwrap.dedent(f"""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        def signer(certificate):
            assert certificate == {str(own.cert)!r}
            key = load_pem_private_key(open({str(own.key)!r}, "rb").read(), None)
            return lambda request: key.sign(request.message, ec.ECDSA(hashes.SHA256()))
        """)
    )
    monkeypatch.chdir(tmp_path)
    with serving(f"--ssl-certfile={own.cert}", "--ssl-keyfile=python:mykeys:signer") as site:
        assert "  engine       python (auto: the key says so)\n" in site.said
        assert site.connection(own.ca)["parks"] >= 1


@pytest.mark.parametrize("source", ["pass:{}", "{}", "file:{file}", "env:TOKEN_PIN"])
def test_pkcs11(own: Identity, web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    (tmp_path / "pin").write_bytes(PIN)
    (tmp_path / "pin").chmod(0o600)
    monkeypatch.setenv("TOKEN_PIN", PIN.decode())
    pin = source.format(PIN.decode(), file=tmp_path / "pin")
    uri = web.partition("?")[0]
    options = [f"--ssl-certfile={own.cert}", f"--ssl-keyfile={uri}", f"--ssl-keyfile-password={pin}"]
    with serving(*options, f"--pkcs11-module={MODULE}") as site:
        assert "  engine       pkcs11 (auto: the key says so)\n" in site.said
        assert site.connection(own.ca)["parks"] >= 1


def test_fallback(own: Identity, tmp_path: Path) -> None:
    key = f"--ssl-keyfile=remote:unix:{tmp_path}/nobody.sock"
    with serving(f"--ssl-certfile={own.cert}", key, f"--signer-fallback={own.key}") as site:
        site.get(own.ca)


def test_key_server_of_another_user(own: Identity, tmp_path: Path) -> None:
    """Who may listen is said; the own user is no longer one of them."""
    with KeyServer([own], tmp_path / "s") as server:
        options = [f"--ssl-certfile={own.cert}", f"--ssl-keyfile=remote:{server.address}"]
        with serving(*options, f"--signer-user={os.geteuid()}") as site:
            assert site.connection(own.ca)["parks"] >= 1
        with serving(*options, "--signer-user=54321", f"--signer-fallback={own.key}") as site:
            site.get(own.ca)
            code, errors = site.stop()
        assert code == 0
        assert "who is not one of peer_uids" in errors


# Mistakes.

MISTAKES = {
    "remote without addresses": ("--ssl-keyfile=remote:", "key 'remote:' names no signer: write remote:ADDRESS"),
    "no address": ("--ssl-keyfile=remote:here", "signer 'here' is no address: write unix:"),
    "TLS without certificates": (
        "--ssl-keyfile=remote:localhost:1",
        "signer localhost:1 is reached by TLS: give a client certificate, its key and authorities",
    ),
    "half of TLS": (
        "--ssl-keyfile=remote:localhost:1 --signer-ca-certs={cert}",
        "half of what TLS to a key server needs is missing: give --signer-certfile and --signer-ca-certs",
    ),
    "a name without TLS": (
        "--ssl-keyfile=remote:unix:/x --signer-name=x",
        "--signer-keyfile and --signer-name are for key servers with TLS",
    ),
    "a user who is none": (
        "--ssl-keyfile=remote:unix:/x --signer-user=nobody-there",
        "no user 'nobody-there' on this machine: give a name or a number",
    ),
    "a user for another signer": (
        "--offload=isolated --ssl-keyfile={key} --signer-user=root",
        "--signer-user is for --offload remote, not for --offload isolated: leave it out",
    ),
    "isolated with a signer's key": (
        "--offload=isolated --ssl-keyfile=remote:unix:/x",
        "--offload isolated is for a key in a file, not for remote: leave it out",
    ),
    "isolated without a key": (
        "--offload=isolated --ssl-keyfile=/nowhere.pem",
        "key /nowhere.pem cannot be read: No such file or directory; give another path",
    ),
    "isolated with another key": (
        "--offload=isolated --ssl-keyfile={other}",
        "the private key does not belong to the certificate: give the key that the certificate was made for",
    ),
    "isolated with key and certificate in one file": (
        "--offload=isolated --ssl-certfile={both}",
        "holds a private key, which --offload isolated is to keep out of this process: move it to a file of its own",
    ),
    "another engine's option": (
        "--ssl-keyfile=remote:unix:/x --offload-threads=2",
        "--offload-threads is for --offload threads or",
    ),
    "an option of signers without one": (
        "--ssl-keyfile={key} --signer-deadline=2 --offload=threads",
        "--signer-deadline is for --offload pkcs11 or remote or isolated, not for --offload threads: leave it out",
    ),
    "remote without its key": ("--offload=remote --ssl-keyfile={key}", "--offload remote needs a key of its own"),
    "no factory": ("--ssl-keyfile=python:nothing_here", "signer 'nothing_here' is not of the form module:factory"),
    "no module": ("--ssl-keyfile=python:nothing_here:x", "signer nothing_here:x: there is no module nothing_here"),
    "no token": (
        "--ssl-keyfile=pkcs11:token=none --pkcs11-module={module}",
        "token 'none'",
    ),
    "no PKCS #11 module": (
        "--ssl-keyfile=pkcs11:token=none --pkcs11-module=/nowhere.so",
        "PKCS #11 module /nowhere.so cannot be loaded",
    ),
    "a fallback that is another key": (
        "--ssl-keyfile=remote:unix:/x --signer-fallback=/nowhere.pem",
        "key /nowhere.pem cannot be read: No such file or directory; give another path with --signer-fallback",
    ),
}


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
@pytest.mark.usefixtures("softhsm")
def test_a_mistake_is_one_line(
    certificates: Certificates, own: Identity, tmp_path: Path, capsys: pytest.CaptureFixture[str], mistake: str
) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(own.key.read_bytes() + own.cert.read_bytes())
    arguments, message = MISTAKES[mistake]
    paths = {"cert": own.cert, "key": own.key, "other": certificates["p384"].key, "both": both, "module": MODULE}
    given = [one.format(**paths) for one in arguments.split()]
    if not any(one.startswith("--ssl-certfile") for one in given):
        given.append(f"--ssl-certfile={own.cert}")
    assert cli.run(["serve", "--port=0", *given]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("20")]
    assert line.startswith("tlsserver: error: ")
    assert message in line
