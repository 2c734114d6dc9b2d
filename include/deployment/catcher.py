"""Catch mail: ``python -m include.deployment.catcher`` accepts all mail over STARTTLS, sends none.

It replaces the company's mail server until the connection ``mail`` names that server.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
from pathlib import Path

from aiosmtpd.smtp import SMTP

from include.deployment import layout
from include.local.mail import Taking
from include.services.clock import SystemClock

FOLDER = Path("/var/lib/parcelseal-mail")


async def serve(folder: Path, certificate: Path, port: int, host: str | None = None) -> None:
    """Serve until SIGTERM.

    Args:
        folder: each mail becomes a file in it.
        certificate: PEM file with certificate and key.
        port: to listen on.
        host: address to listen on; None for all.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    taking = Taking(folder, SystemClock())
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(
        lambda: SMTP(taking, enable_SMTPUTF8=True, tls_context=context, require_starttls=True),
        host,
        port,
    )
    await ended.wait()
    server.close()


if __name__ == "__main__":
    own = FOLDER / "mails"  # the folder above is the volume's, and anybody's
    asyncio.run(serve(own, Path(layout.mounted("mail_certificate")), layout.MAIL_PORT))
