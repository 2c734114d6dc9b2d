"""A real nginx with TLS in front of a server, configured according to docs/how-to/deploy.md."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from include.deployment.authority import authority_of, new_authority_key, new_server
from include.local.airflow import free_port
from include.service_container import ROOT
from include.services.clock import SystemClock

PROGRAM = "/usr/sbin/nginx"  # of Debian's package nginx-light
READY_TIMEOUT = 20  # seconds
SITE = ROOT / "deploy" / "nginx.conf.example"
_MAIN = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


@contextmanager
def nginx_before(url: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Start nginx in front of a server, with the site of `deploy/nginx.conf.example`.

    Args:
        url: address of the server, without TLS.
        folder: an empty folder.

    Yields:
        The address of nginx, and the certificate file of the authority that verifies it.
    """
    now = SystemClock().now()
    key = new_authority_key()
    authority = authority_of(key, now)
    server_key, certificate = new_server("localhost", key, authority, now)
    for name, content in (("key", server_key), ("certificate", certificate), ("ca", authority)):
        (folder / name).write_bytes(content)
    port = free_port()
    site = SITE.read_text()
    for there, here in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("parcelseal.example", "localhost"),
        ("/etc/ssl/private/parcelseal.key", str(folder / "key")),
        ("/etc/ssl/certs/parcelseal.pem", str(folder / "certificate")),
        ("http://127.0.0.1:8080", url),
    ):
        assert there in site, there
        site = site.replace(there, here)
    (folder / "site.conf").write_text(site)
    (folder / "nginx.conf").write_text(_MAIN.format(folder=folder))
    process = subprocess.Popen(
        [PROGRAM, "-p", str(folder), "-c", str(folder / "nginx.conf")],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait(process, port, folder)
        yield f"https://localhost:{port}", folder / "ca"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def _wait(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    end = time.monotonic() + READY_TIMEOUT
    while time.monotonic() < end:
        assert process.poll() is None, (folder / "error.log").read_text()
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"nginx was not ready within {READY_TIMEOUT} s")
