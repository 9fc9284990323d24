"""`tlsserver gen-cert`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click

from tlsserver import local_certificate
from tlsserver.errors import ConfigurationError

_PATH = click.Path(path_type=Path)


@click.command("gen-cert", context_settings={"show_default": True})
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--key-type", default="ec:p256", metavar="|".join(local_certificate.KEY_TYPES), help="Kind of key.")
@click.option("--days", type=click.IntRange(min=1), default=90, help="How long the certificate is valid.")
@click.option("--out-cert", type=_PATH, default="cert.pem", help="Where to write the certificate.")
@click.option("--out-key", type=_PATH, default="key.pem", help="Where to write the key; only you can read it.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
def command(names: tuple[str, ...], key_type: str, days: int, out_cert: Path, out_key: Path, *, force: bool) -> None:
    """Make a self-signed certificate for host names and IP addresses.

    Without NAME it is for localhost, 127.0.0.1 and ::1.
    """
    if out_cert == out_key:
        raise ConfigurationError(f"certificate and key cannot both be {out_cert}: give two paths")
    for path in (out_cert, out_key):
        if path.exists() and not force:
            raise ConfigurationError(f"{path} exists and is not replaced: give another path, or --force")
    made = local_certificate.generate(names or local_certificate.LOCAL_NAMES, key_type, timedelta(days=days))
    try:
        local_certificate.write_private(out_key, made.key)
        local_certificate.write_atomically(out_cert, made.certificate, 0o644)
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename} cannot be written: {error.strerror}; give --out-cert and --out-key in another folder"
        ) from error
    click.echo(f"certificate  {out_cert}")
    click.echo(f"key          {out_key}")
    click.echo(f"SHA-256      {local_certificate.fingerprint(made.certificate)}")
