"""`tlsserver serve` with client certificates: as a process, and what it says of options that cannot work."""

from __future__ import annotations

import json
import re
import ssl
import urllib.request
from typing import TYPE_CHECKING

import pytest
from helpers_web import serving

from support.client_scene import House
from tlsserver import cli

if TYPE_CHECKING:
    from pathlib import Path

    from support.certificates import Identity


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("clients"))


MISTAKES = {
    "authorities for nobody": (
        ["--ssl-ca-certs={root}"],
        "--ssl-ca-certs does nothing while clients are not asked: give --ssl-cert-reqs optional or required",
    ),
    "list for nobody": (["--ssl-crl={crl}"], "--ssl-crl does nothing"),
    "depth for nobody": (["--ssl-verify-depth=0"], "--ssl-verify-depth does nothing"),
    "no authorities": (
        ["--ssl-cert-reqs=required"],
        "--ssl-cert-reqs required needs the authorities of the clients: give --ssl-ca-certs",
    ),
    "no such mode": (["--ssl-cert-reqs=maybe"], "--ssl-cert-reqs"),
    "missing": (["--ssl-cert-reqs=optional", "--ssl-ca-certs=/no/ca.pem"], "CA file /no/ca.pem: No such file"),
    "unknown issuer": (
        ["--ssl-cert-reqs=optional", "--ssl-ca-certs={stranger}", "--ssl-crl={crl}"],
        "its issuer CN=root is not among the authorities",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(
    identity: Identity, house: House, capsys: pytest.CaptureFixture[str], mistake: str
) -> None:
    given, told = MISTAKES[mistake]
    names = {"root": house.root.cert, "stranger": house.stranger.cert, "crl": house.crl}
    arguments = [argument.format(**names) for argument in given]
    code = cli.run(
        ["serve", "--port=0", f"--ssl-certfile={identity.cert}", f"--ssl-keyfile={identity.key}", *arguments]
    )
    assert code == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"tlsserver: error: [^\n]{30,}\n", said)
    assert told in said


@pytest.mark.parametrize("place", ["file", "folder"])
def test_the_demo_site_knows_its_visitors(identity: Identity, house: House, tmp_path: Path, place: str) -> None:
    (tmp_path / "ca.pem").write_bytes(house.root.pem)
    where = tmp_path / "ca.pem" if place == "file" else tmp_path
    options = (f"--ssl-ca-certs={where}", f"--ssl-crl={house.crl}", "--ssl-verify-depth=3")
    server = (f"--ssl-certfile={identity.cert}", f"--ssl-keyfile={identity.key}")
    with serving(*server, "--ssl-cert-reqs=required", *options) as served:
        context = ssl.create_default_context(cafile=str(identity.ca))
        context.load_cert_chain(house.good.cert, house.good.key)
        with urllib.request.urlopen(f"{served.url}connection.json", context=context, timeout=30) as answer:  # noqa: S310 - our own
            seen = json.load(answer)
        code, errors = served.stop()
    assert (seen["client_subject"], seen["client_sans"]) == ("CN=good", [])
    assert (code, "Traceback" in errors) == (0, False)
