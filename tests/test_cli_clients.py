"""`tlsserver serve` with client certificates: as a process, and what it says of options that cannot work."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from support.client_scene import House
from tlsserver import cli

if TYPE_CHECKING:
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
