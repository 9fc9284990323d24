"""What scanners that others trust say of the default configuration: testssl.sh (Debian) and sslyze (PyPI).

They have to see what docs/tls-policy.md says that we offer, all of it and nothing else, and report no weakness but what
stands below with its reason. `make scan` runs it, about two minutes.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers_web import serving

from tlsserver.policy.profiles import INTERMEDIATE_CIPHERS

if TYPE_CHECKING:
    from support.certificates import Certificates, Identity

pytestmark = [pytest.mark.scan, pytest.mark.timeout(300)]

SSLYZE = Path(__file__).parents[1] / "build" / "scan" / "bin" / "sslyze"

TLS13 = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
# Neither scanner knows X25519MLKEM768 yet; tests/test_negotiation.py does.
GROUPS = {"X25519", "secp256r1", "secp384r1"}

# What testssl.sh finds fault with, and why it stays.
ACCEPTED = {
    "cipher_order": "the client's order decides, among sound suites, as Mozilla has it: docs/tls-policy.md",
    "cert_chain_of_trust": "the tests' own authority",
    "cert_expirationStatus": "a certificate for two days",
    "cert_notAfter": "the same",
    "cert_revocation": "the same: nobody revokes it",
    "DNS_CAArecord": "localhost has no DNS",
    "engine_problem": "of the machine that scans",
}
VULNERABILITIES = {
    *("heartbleed", "CCS", "ticketbleed", "ROBOT", "secure_renego", "secure_client_renego", "CRIME_TLS", "POODLE_SSL"),
    *("fallback_SCSV", "SWEET32", "FREAK", "DROWN", "LOGJAM", "BEAST", "LUCKY13", "RC4"),
}


def certificate_arguments(identity: Identity) -> tuple[str, ...]:
    return "--certfile", str(identity.cert), "--keyfile", str(identity.key)


def testssl(port: int, output: Path) -> dict[str, dict[str, str]]:
    """Findings by name, of protocols, suites, groups, preferences, defaults and vulnerabilities."""
    options = ["--quiet", "--color=0", "--warnings=off", "--ip=one", f"--jsonfile={output}"]
    command = ["testssl", *options, "-p", "-s", "-f", "-P", "-S", "-U", f"localhost:{port}"]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=280, check=False)
    return {found["id"]: found for found in json.loads(output.read_text())}


testssl.__test__ = False  # type: ignore[attr-defined]


def test_testssl_finds_no_weakness(certificates: Certificates, tmp_path: Path) -> None:
    with serving(*certificate_arguments(certificates["rsa2048"])) as served:
        found = testssl(served.port, tmp_path / "found.json")
        code, errors = served.stop()
    faults = {name for name, one in found.items() if one["severity"] not in {"OK", "INFO"}}
    assert {name: found[name]["finding"] for name in faults - set(ACCEPTED)} == {}
    assert set(found) >= VULNERABILITIES
    offered = {name for name in ("SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3") if offers(found[name])}
    assert offered == {"TLS1_2", "TLS1_3"}
    suites = {suite for suite in INTERMEDIATE_CIPHERS.split(":") if "RSA" in suite}
    assert set(found["PFS_ciphers"]["finding"].split()) == suites | TLS13
    curves = found["PFS_ECDHE_curves"]["finding"].replace("prime256v1", "secp256r1")
    assert set(curves.split()) == GROUPS
    assert "7200 seconds" in found["TLS_session_ticket"]["finding"]
    assert (code, "Traceback" in errors) == (0, False)


def offers(found: dict[str, str]) -> bool:
    return found["finding"].startswith("offered")


def sslyze(port: int, profile: str, output: Path) -> tuple[dict[str, Any], set[str]]:
    """What was found, and what of it is not as Mozilla's profile has it."""
    assert SSLYZE.exists(), "`make scan` installs it"
    command = [str(SSLYZE), f"--json_out={output}", f"--mozilla_config={profile}", "--early_data", f"localhost:{port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    (scanned,) = json.loads(output.read_text())["server_scan_results"]
    found = {name: one["result"] for name, one in scanned["scan_result"].items() if one["status"] == "COMPLETED"}
    compliance = done.stdout.partition("COMPLIANCE AGAINST TLS CONFIGURATION")[2]
    assert compliance, done.stdout + done.stderr
    return found, set(re.findall(r"^ +\* (\w+): ", compliance, re.MULTILINE))


def names(found: dict[str, Any], version: str) -> set[str]:
    return {one["cipher_suite"]["openssl_name"] for one in found[f"{version}_cipher_suites"]["accepted_cipher_suites"]}


@pytest.mark.parametrize("profile", ["intermediate", "modern"])
@pytest.mark.parametrize("kind", ["rsa2048", "p256"])
def test_sslyze_sees_mozillas_profile(certificates: Certificates, tmp_path: Path, kind: str, profile: str) -> None:
    if (kind, profile) == ("rsa2048", "modern"):
        pytest.skip("Mozilla's modern profile has ECDSA certificates alone")
    with serving(*certificate_arguments(certificates[kind]), "--ssl-profile", profile) as served:
        found, differs = sslyze(served.port, profile, tmp_path / "found.json")
    # That the authority is the tests' own, and the certificate's form: nothing of ours.
    assert {one for one in differs if not one.startswith("certificate_")} == set()
    assert names(found, "tls_1_3") == TLS13
    ours = {suite for suite in INTERMEDIATE_CIPHERS.split(":") if ("ECDSA" in suite) == (kind == "p256")}
    assert names(found, "tls_1_2") == (ours if profile == "intermediate" else set())
    assert not any(names(found, old) for old in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"))
    if profile == "intermediate":  # it asks for curves in TLS 1.2
        assert {one["name"] for one in found["elliptic_curves"]["supported_curves"]} == GROUPS


def test_sslyze_finds_no_weakness(certificates: Certificates, tmp_path: Path) -> None:
    with serving(*certificate_arguments(certificates["rsa2048"])) as served:
        found, _ = sslyze(served.port, "intermediate", tmp_path / "found.json")
    assert {name: found[name] for name in WEAKNESSES} == WEAKNESSES


WEAKNESSES: dict[str, dict[str, Any]] = {
    "tls_compression": {"supports_compression": False},
    "tls_1_3_early_data": {"supports_early_data": False},
    "openssl_ccs_injection": {"is_vulnerable_to_ccs_injection": False},
    "tls_fallback_scsv": {"supports_fallback_scsv": True},
    "heartbleed": {"is_vulnerable_to_heartbleed": False},
    "robot": {"robot_result": "NOT_VULNERABLE_RSA_NOT_SUPPORTED"},
    "session_renegotiation": {
        "supports_secure_renegotiation": True,
        "is_vulnerable_to_client_renegotiation_dos": False,
        "client_renegotiations_success_count": 0,
    },
    "tls_extended_master_secret": {"supports_ems_extension": True},
}
