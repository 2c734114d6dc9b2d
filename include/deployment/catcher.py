"""Run a mail catcher: ``python -m include.deployment.catcher`` stores mail instead of sending it.

The catcher accepts all mail over STARTTLS. It replaces the company's mail server until the
connection ``mail`` names the company's mail server.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
from pathlib import Path

from aiosmtpd.smtp import SMTP

from include.deployment import layout
from include.local.mail import MailWriter
from include.services.clock import SystemClock

FOLDER = Path("/var/lib/parcelseal-mail")


async def serve(folder: Path, certificate: Path, port: int, host: str | None = None) -> None:
    """Accept mails until the process receives SIGTERM.

    Args:
        folder: folder in which each mail is stored as a file.
        certificate: PEM file with the certificate and the private key.
        port: port to listen on.
        host: address to listen on; None for all addresses.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    writer = MailWriter(folder, SystemClock())
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(
        lambda: SMTP(writer, enable_SMTPUTF8=True, tls_context=context, require_starttls=True),
        host,
        port,
    )
    await ended.wait()
    server.close()


if __name__ == "__main__":
    mails = FOLDER / "mails"  # FOLDER is the volume, which other users can read
    asyncio.run(serve(mails, Path(layout.mounted("mail_certificate")), layout.MAIL_PORT))
