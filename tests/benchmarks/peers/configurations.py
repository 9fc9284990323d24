"""Configuration files of the servers that have one, and the arguments that name them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

# `user`: nginx's master drops to a user that may not read the folder; whoever runs this may.
NGINX = """
daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid nginx.pid; error_log stderr crit; {user}
events {{ worker_connections 12000; }}
http {{
    access_log off; keepalive_timeout 3600s; client_header_timeout 3600s; keepalive_requests 1000000000;
    client_body_temp_path body; proxy_temp_path proxy;
    fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{
        listen 127.0.0.1:{port} ssl backlog=4096;
        ssl_certificate {certificate}; ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3; ssl_ciphers {ciphers}; ssl_ecdh_curve X25519;
        ssl_conf_command Ciphersuites TLS_AES_256_GCM_SHA384;
        location / {{ return 200 "hello"; }}
    }}
}}
"""

# maxconn: it wants two file descriptors for each, and refuses to start above its limit.
HAPROXY = """
global
    nbthread 1
    maxconn 9700
defaults
    mode http
    timeout client 1h
    timeout http-request 1h
    timeout http-keep-alive 1h
    timeout connect 1h
    timeout server 1h
frontend hello
    bind 127.0.0.1:{port} backlog 4096 ssl crt {combined} curves X25519 ciphers {ciphers}
    http-request return status 200 content-type text/plain string hello
"""

# neverbleed would put the key into a second process: a round trip for each signature.
H2O = """
num-threads: 1
max-connections: 12000
tcp-fastopen: 0
http1-request-timeout: 3600
http2-idle-timeout: 3600
error-log: /dev/null
hosts:
  default:
    listen:
      host: 127.0.0.1
      port: {port}
      ssl:
        certificate-file: {certificate}
        key-file: {key}
        cipher-suite: {ciphers}
        ocsp-update-interval: 0
        neverbleed: OFF
    paths:
      /:
        file.dir: {folder}
"""

CIPHERS = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"


def write(place: Any, text: str) -> Path:
    """Fill in and write, for a `servers.Place`; the folder also gets a page of five bytes."""
    folder: Path = place.folder
    combined = folder / "both.pem"
    combined.write_bytes(place.identity.cert.read_bytes() + place.identity.key.read_bytes())
    (folder / "index.html").write_text("hello", encoding="ascii")
    path = folder / "configuration"
    values = {
        "port": place.port,
        "certificate": place.identity.cert,
        "key": place.identity.key,
        "combined": combined,
        "folder": folder,
        "ciphers": CIPHERS,
        "user": "user root;" if os.geteuid() == 0 else "",
    }
    path.write_text(text.format(**values), encoding="utf-8")
    return path


def _nginx(place: Any) -> list[str]:
    return ["-p", str(place.folder), "-e", "stderr", "-c", str(write(place, NGINX))]


def _haproxy(place: Any) -> list[str]:
    return ["-db", "-q", "-f", str(write(place, HAPROXY))]


def _h2o(place: Any) -> list[str]:
    return ["-c", str(write(place, H2O))]


WRITERS: dict[str, Callable[[Any], list[str]]] = {"nginx": _nginx, "haproxy": _haproxy, "h2o": _h2o}
